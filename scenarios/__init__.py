"""Problems and wiring: what is optimized, by whom, and how it is run."""

from scenarios.experiment import Experiment, make_experiment
from scenarios.simulate import RunResult, federate, simulate

__all__ = ["Experiment", "RunResult", "federate", "make_experiment", "simulate"]
