"""evenhand inside other tools; every module here is imported by its own name and needs only the tool it is for.

`sklearn`: `TiltCorrector`, `scorers`, `AuditDisplay`. `torch`: `CorrectedModule`. `heads`: corrections folded into last
layers, by arrays or inside a model.
"""
