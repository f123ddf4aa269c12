"""What projecting local iterates costs: the tables of docs/results/projection.md.

Axis: mean total queries to success (attack) and F after 52,500 queries (quadratic).
"""

import torch

from scenarios import make_experiment, simulate

SERVER_ADAM = {
    "strategy.local_lr": 1.0,
    "client.optimizer": "sgd",
    "strategy.server_optimizer": "adam",
    "strategy.server_lr": 0.1,
}
LOCAL_ADAM = {
    "strategy.local_lr": 0.2,
    "client.optimizer": "adam",
    "strategy.server_optimizer": "sgd",
    "strategy.server_lr": 1.0,
}
METHODS = {
    "local Adam, 20 directions": {**LOCAL_ADAM, "client.num_directions": 20},
    "server Adam, 20 directions": {**SERVER_ADAM, "client.num_directions": 20},
    "server Adam, 10 directions": {**SERVER_ADAM, "client.num_directions": 10},
}


def attack(settings: dict[str, object], radius: float, project: bool) -> str:
    """Return queries and success rate for seeds 0, 1, 77."""
    cells = []
    for seed in (0, 1, 77):
        experiment = make_experiment(
            "attack",
            "fedzo",
            num_rounds=2000,
            query_budget=20_000,
            seed=seed,
            settings={
                **settings,  # type: ignore[dict-item]
                "scenario.num_images": 6,
                "scenario.radius": radius,
                "client.project": project,
            },
        )
        metrics = simulate(experiment).metrics
        cells.append(f"{metrics['mean_queries']:.0f} ({metrics['success_rate']:.2g})")
    return " / ".join(cells)


def quadratic(heterogeneity: float, project: bool) -> str:
    """Return final F for seeds 0, 1, 2."""
    settings = {"scenario.heterogeneity": heterogeneity, "client.project": project}
    runs = [
        simulate(make_experiment("quadratic", "fedzo", seed=seed, settings=settings))
        for seed in (0, 1, 2)
    ]
    return " / ".join(f"{run.final_value:.4f}" for run in runs)


def main() -> None:
    torch.set_num_threads(1)
    for name, settings in METHODS.items():
        for radius in (0.3, 0.2):
            for project in (True, False):
                print(
                    f"{name} | {radius} | project={project} | {attack(settings, radius, project)}"
                )
    for heterogeneity in (0.5, 5.0, 50.0):
        for project in (True, False):
            print(f"C={heterogeneity} | project={project} | {quadratic(heterogeneity, project)}")


if __name__ == "__main__":
    main()
