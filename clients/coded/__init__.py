"""The rule of machines that work on the data of several clients."""
