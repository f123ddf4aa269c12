"""What `import fedzo` offers, for editors and type checkers: a test compares it with FACE."""

from fedzo.blackbox.minimize import minimize as minimize
from fedzo.blackbox.optimizer import Optimizer as Optimizer
from fedzo.blackbox.variables import Choice as Choice
from fedzo.blackbox.variables import Float as Float
from fedzo.blackbox.variables import Int as Int
from fedzo.blackbox.variables import Log as Log
from fedzo.errors import ConfigError as ConfigError
from fedzo.errors import FedzoWarning as FedzoWarning
from fedzo.estimation.snapshots import keep_snapshots as keep_snapshots
from fedzo.finetuning.activity.optimizer import ActivityZO as ActivityZO
from fedzo.finetuning.methods.method import Method as Method
from fedzo.finetuning.zeroth_order import ZerothOrder as ZerothOrder
from fedzo.objectives.objective import CallableObjective as CallableObjective
from fedzo.objectives.objective import Maximize as Maximize
from fedzo.objectives.objective import ModuleObjective as ModuleObjective
from fedzo.objectives.objective import Objective as Objective
from fedzo.objectives.objective import TorchObjective as TorchObjective
from scenarios.attacks.one_call import attack as attack
from scenarios.runs.check import check as check
from scenarios.runs.experiment import make_experiment as make_experiment
from scenarios.runs.figure import plot as plot
from scenarios.runs.retime import retime as retime
from scenarios.runs.run_result import RunResult as RunResult
from scenarios.runs.simulate import federate as federate
from scenarios.runs.simulate import simulate as simulate
from scenarios.runs.stored import load_run as load_run
from scenarios.runs.stored import load_runs as load_runs
from scenarios.runs.table import table as table

__version__: str
FACE: dict[str, str]
