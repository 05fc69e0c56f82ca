"""evenhand inside other tools; every module here is imported by its own name and needs only the tool it is for.

`sklearn`: `TiltCorrector`, `scorers`, `AuditDisplay`. `torch`: `CorrectedModule`. `heads`: corrections folded into last
layers, by arrays or inside a model. `metrics`: `AuditMetric` for torchmetrics and Accelerate. `lightning` and `keras`:
`AuditCallback`, for Keras `EvenhandLoss` too. `transformers`: `trainer_loss`, `AuditMetrics`. `cluster`:
`tally_partitions` for Dask. For loops of your own there is `evenhand.RunningTally`.
"""
