"""The engines that can run a model: one module per engine."""
