"""Properties that any loss should have: checked for evenhand by the tests, for other packages by the benchmarks."""
