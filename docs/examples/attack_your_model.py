"""Attack a torch model of your own with as many lines as fit on a screen; run it as it is."""

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.victims.victim import ModuleVictim
from scenarios.attacks.single_attack import Plan, attack_victim
from scenarios.victims.shipped import shipped_network

yours = shipped_network("mnist")  # put your module, images [n, c, h, w] in [0, 1] and labels here
model, images, labels = yours.module, yours.test.pixels.unsqueeze(1), yours.test.labels

plan = Plan(num_images=20, settings=AttackSettings(norm="linf", radius=0.2, query_budget=500))
report = attack_victim(ModuleVictim(model), images, labels, plan)
for found in report.found[:5]:
    print(f"image {found.index}: fooled {found.success} with {found.queries} queries")
print({name: report.summary()[name] for name in ("success_rate", "mean_queries", "queries")})
