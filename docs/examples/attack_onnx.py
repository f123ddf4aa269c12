"""Attack a model of which only an ONNX file is there: no gradient exists."""

import tempfile
from pathlib import Path

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.victims.onnx import OnnxVictim, export_onnx
from scenarios.attacks.single_attack import Plan, attack_victim
from scenarios.victims.shipped import shipped_network

shipped = shipped_network("mnist")
images, labels = shipped.test.pixels.unsqueeze(1), shipped.test.labels
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "model.onnx"
    export_onnx(shipped.module, (1, 28, 28), path)  # or a path to your own file
    plan = Plan(num_images=20, settings=AttackSettings(norm="linf", radius=0.2, query_budget=500))
    print(attack_victim(OnnxVictim(path), images, labels, plan).summary())
