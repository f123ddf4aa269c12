"""The named methods, each a line of parts: fedzo.finetuning.methods.table."""
