"""The methods by name."""

from collections.abc import Mapping

from fedzo.config import Scalar, build_config, require, unknown_key
from fedzo.finetuning.methods import learned, plain, ranked, structured
from fedzo.finetuning.methods.method import Method

METHODS: dict[str, type[Method]] = {
    "mezo": plain.MeZO,
    "zo_sgd": plain.ZOSGD,
    "zo_momentum": plain.ZOMomentum,
    "zo_adam": plain.ZOAdam,
    "zo_sign": plain.ZOSign,
    "zo_conservative": plain.ZOConservative,
    "fzoo": plain.FZOO,
    "forward_gradient": plain.ForwardGradient,
    "block_zo": plain.BlockZO,
    "sparse_mezo": structured.SparseMeZO,
    "lozo": structured.LOZO,
    "subzero": structured.SubZero,
    "zo_muon": structured.ZOMuon,
    "deepzero": structured.DeepZero,
    "cge": structured.CGE,
    "qzo": structured.QZO,
    "zoodip": structured.ZOODiP,
    "rank_sgd": ranked.ZORankSGD,
    "consensus": ranked.ConsensusHopping,
    "evolution": ranked.EvolutionStrategy,
    "hizoo": learned.HiZOO,
    "mezo_svrg": learned.MeZOSVRG,
    "guided_es": learned.GuidedES,
    "relizo": learned.ReLIZO,
    "gp": learned.GPGradient,
    "zoro": learned.ZORO,
}


def method_of(
    method: str | Method | type[Method], settings: Mapping[str, Scalar] | None = None
) -> Method:
    """Return the method of that name, or class, with settings of its own, or the method itself.

    Raises ConfigError for a name that nobody has, with those that are near, for settings that the
    method does not have, and for settings beside a method that has them.
    """
    if isinstance(method, Method):
        require(not settings, "settings", settings, "left out where method is an instance")
        return method
    if isinstance(method, type) and issubclass(method, Method):
        return build_config(method, settings or {}, section="method")
    if method not in METHODS:
        raise unknown_key(method, METHODS, what="method")
    return build_config(METHODS[method], settings or {}, section="method")


def name_of(method: Method) -> str:
    """Return the name of a method, or that of its class where it has none."""
    names = {kind: name for name, kind in METHODS.items()}
    return names.get(type(method), type(method).__name__)
