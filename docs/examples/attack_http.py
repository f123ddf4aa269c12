"""Start a server on this machine, attack what stands behind it by labels alone, stop it.

The server fails in a fifth of all requests and answers at most fifty a second; the attack tries
again, waits as it is told, and pays for no image twice.
"""

from fedzo.attacks.attack import AttackSettings
from fedzo.attacks.victims.remote import RemoteVictim
from fedzo.attacks.victims.server import serving
from fedzo.attacks.victims.victim import ModuleVictim
from fedzo.attacks.victims.wrappers import LabelOnly
from fedzo.objectives.transport import Http
from fedzo.randomness import stream
from scenarios.attacks.single_attack import Plan, attack_victim
from scenarios.victims.shipped import shipped_network

shipped = shipped_network("mnist")
images, labels = shipped.test.pixels.unsqueeze(1), shipped.test.labels
victim = LabelOnly(ModuleVictim(shipped.module))
with serving(victim, failure_rate=0.2, rate_limit=50, generator=stream(0, "failures")) as server:
    http = Http(url=server.url, retries=10, pause_s=0.02)
    plan = Plan(num_images=8, settings=AttackSettings(norm="linf", radius=0.2, query_budget=300))
    report = attack_victim(RemoteVictim(transport=http, tells="labels"), images, labels, plan)
    print(report.summary())
    print(f"the server has answered {server.queries} images in {server.requests} requests,")
    print(f"failed {server.failures} requests, and refused {server.limited} as too many")
