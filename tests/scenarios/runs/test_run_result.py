"""A result prints as the command shows it, and as a table in a notebook."""

from rich.console import Console

import fedzo
from fedzo.objectives.objective import CallableObjective
from scenarios.cli.display import print_result
from scenarios.runs.simulate import RunResult, federate


def run(strategy: str = "fedzo") -> RunResult:
    return federate(
        lambda client: CallableObjective(
            function=lambda x: float(((x - client) ** 2).sum()), dim=2
        ),
        num_clients=2,
        strategy=strategy,
        num_rounds=2,
    )


def test_print_and_terminal_say_the_same() -> None:
    result = run()
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    print_result(console, result)
    shown, told = console.export_text(), repr(result).splitlines()
    assert told[0] == "custom / fedzo, 2 clients, seed 0"
    for line in told[1:]:
        name, _, value = line.partition(":")
        assert any(name in row and value.strip() in row for row in shown.splitlines()), line
    assert [line.partition(":")[0] for line in told[1:4]] == ["objective", "best", "rounds"]
    assert len(repr(result)) < 1000, "no tensors"


def test_an_end_that_nobody_could_judge_is_told() -> None:
    walked = federate(
        lambda client: CallableObjective(
            function=lambda x: float("nan") if x[0] > 0.3 else float(((x - 0.5) ** 2).sum()), dim=2
        ),
        num_clients=2, num_rounds=15, strategy="fedzo_adam", initial_x=[0.0, 0.0],
        settings={"client.non_finite": "skip"},
    )  # fmt: skip
    assert walked.records[-1].value is None
    last = max(r.round_index for r in walked.records if r.value is not None)
    assert f"after round {last}; nobody could judge x since" in repr(walked)
    assert walked.final_value is None
    assert walked.best_value is not None
    [panel] = fedzo.table({"lost": [walked], "sound": [run()]}, y="value").panels
    assert {row.method: row.mean is None for row in panel.rows} == {"lost": True, "sound": False}
    assert any("lost has no value there with seed 0" in note for note in panel.notes)
    assert "judged last" not in repr(run())


def test_a_notebook_gets_a_table_in_which_nothing_acts() -> None:
    html = run()._repr_html_()
    assert html.startswith('<table><tr><th colspan="2">custom / fedzo, 2 clients, seed 0</th></tr>')
    assert "-&gt;" in html, "the arrow between the values is text"
    assert html.count("<tr>") == html.count("</tr>") > 6
