"""Networks that are adapted to data they were not trained on, for the scenario `finetune`."""
