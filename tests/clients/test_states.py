"""Laws of what clients remember: the same question finds the same state, and little is kept."""

from pathlib import Path

import pytest
import torch
from flwr.app import RecordDict
from hypothesis import given
from hypothesis import strategies as st

from clients.states import States, load_states, save_states, state_file
from fedzo.errors import ConfigError, RunError
from fedzo.protocol.exchange import JUDGING, ClientState, Moment

moments = st.builds(Moment, st.integers(0, 1), st.integers(1, 4), st.integers(1, 3))
anything = st.lists(moments, max_size=12)
ascending = st.lists(moments, max_size=12, unique=True).map(sorted)


def state(number: float) -> dict[str, torch.Tensor]:
    """Return a state that can be told from others."""
    return {"memory": torch.tensor([number, -number]), "a/b.c": torch.tensor(number)}


def number_of(found: ClientState) -> float | None:
    """Return the number of a state, None of the empty one."""
    return float(found["a/b.c"]) if found else None


def walked(path: list[Moment]) -> States:
    """Return the states after exchanges at these moments, each of another attempt of the run."""
    states = States("run")
    for number, now in enumerate(path):
        states = states.after(now, str(number), state(number))
    return states


def asked(states: States, now: Moment) -> float | str | None:
    """Return what a question at this moment finds."""
    try:
        return number_of(states.before(now))
    except RunError:
        return "gone"


def same(a: States, b: States) -> bool:
    return (
        a.run == b.run
        and a.tensors().keys() == b.tensors().keys()
        and all(torch.equal(tensor, b.tensors()[name]) for name, tensor in a.tensors().items())
    )


@given(anything, moments)
def test_a_question_that_comes_twice_finds_the_same_state(path, now) -> None:  # type: ignore[no-untyped-def]
    states = walked(path)
    again = states.after(now, "x", state(100))
    assert asked(again, now) == asked(states, now)
    assert again.after(now, "x", state(100)) is again, "and changes nothing"


@given(anything, moments, moments)
def test_the_next_question_finds_what_the_last_one_left(path, now, later) -> None:  # type: ignore[no-untyped-def]
    after = state(100)
    states = walked(path).after(now, "x", after)
    found = {} if asked(states, later) == "gone" else states.before(later)
    if later.problem == now.problem and now < later:
        assert found is after
    if later.problem != now.problem:
        assert found == {}, "problems do not know each other"


@given(ascending)
def test_every_exchange_of_the_last_round_can_be_asked_again(path) -> None:  # type: ignore[no-untyped-def]
    states = walked(path)
    for number, now in enumerate(path):
        if path and now.parts[:2] == path[-1].parts[:2]:
            first = walked(path[:number]).before(now)
            assert number_of(states.before(now)) == number_of(first)


def test_an_old_message_of_the_same_attempt_does_not_turn_back_the_memory() -> None:
    states = States("run")
    for round_index in (1, 2, 3):
        states = states.after(Moment(0, round_index, 0), "x", state(round_index))
    assert states.after(Moment(0, 2, 0), "x", state(100)) is states
    assert number_of(states.before(Moment(0, 4, 0))) == 3
    resumed = states.after(Moment(0, 3, 0), "y", state(100))
    assert number_of(resumed.before(Moment(0, 4, 0))) == 100, "a resumed run may go back"


def test_a_memory_that_is_gone_is_an_error_and_not_an_empty_one() -> None:
    states = States("run")
    for round_index in (1, 2, 3):
        states = states.after(Moment(0, round_index, 0), "x", state(round_index))
    assert number_of(states.before(Moment(0, 3, 0))) == 2
    with pytest.raises(RunError, match="no longer has its memory of round 2"):
        states.before(Moment(0, 2, 0))
    assert states.before(Moment(0, 1, 0)) == {}, "before the first there was none"


@given(anything)
def test_the_first_exchange_of_a_problem_finds_nothing(path) -> None:  # type: ignore[no-untyped-def]
    assert walked(path).before(Moment(0, 0, 0)) == {}


def test_memory_stays_bounded_over_many_rounds() -> None:
    states = States("run")
    for round_index in range(1, 300):
        for exchange in (1, 2, 3):
            states = states.after(Moment(0, round_index, exchange), "x", state(round_index))
        assert len(states.by_moment) == min(3 * round_index, 3 + 1)


@given(anything)
def test_what_is_kept_is_one_round_and_one_state_before(path) -> None:  # type: ignore[no-untyped-def]
    kept = walked(path).by_moment
    rounds = [moment.parts[:2] for moment in kept]
    if path:
        assert sum(moment != path[-1].parts[:2] for moment in rounds) <= 1
        assert len({moment.problem for moment in kept}) == 1


@given(anything)
def test_states_survive_tensors_and_the_context(path) -> None:  # type: ignore[no-untyped-def]
    states, records = walked(path), RecordDict()
    assert same(States.of(states.facts(), states.tensors()), states)
    save_states(records, states, None)
    assert same(load_states(records, "run", None), states)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_states_survive_the_file(tmp_path: Path, length: int) -> None:
    states = walked([Moment(0, 2, exchange) for exchange in range(1, length + 1)])
    file = state_file(tmp_path / "deep" / "down", "run", 3)
    save_states(RecordDict(), states, file)
    assert same(load_states(RecordDict(), "run", file), states)
    assert [path.name for path in file.parent.iterdir()] == ["client-3.safetensors"]


def test_the_judging_of_a_round_comes_after_its_exchanges() -> None:
    assert Moment(0, 3, 1) < Moment(0, 3, 9) < Moment(0, 3, JUDGING) < Moment(0, 4, 1)
    assert Moment().parts == (0, 0, 0)


def test_another_runs_states_are_not_seen(tmp_path: Path) -> None:
    states, records = walked([Moment(0, 1, 1)]), RecordDict()
    save_states(records, states, state_file(tmp_path, "run", 0))
    assert load_states(records, "other", None) == States("other")
    assert load_states(records, "other", state_file(tmp_path, "other", 0)) == States("other")
    assert load_states(RecordDict(), "run", state_file(tmp_path, "run", 1)) == States("run")
    assert load_states(RecordDict(), "run", None) == States("run")


@pytest.mark.parametrize(
    "run", ["..", "../other", "/etc", "a/b", "a\\b", ".", "a.b", "a\n", "a\0b", "ü", "x" * 65, " "]
)
def test_run_names_that_are_paths_are_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(ConfigError, match="may hold only letters, digits, - and _"):
        state_file(tmp_path, run, 0)


@given(st.text("abcXYZ019_-", max_size=64))
def test_a_states_file_lies_in_the_folder_of_its_run(run: str) -> None:
    file = state_file("/states", run, 12)
    assert file.parent.parent == Path("/states")
    assert file.resolve() == file


@pytest.mark.parametrize("rubbish", [b"", b"rubbish", b"\xff" * 64])
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path, rubbish: bytes) -> None:
    file = tmp_path / "client-0.safetensors"
    file.write_bytes(rubbish)
    with pytest.raises(ConfigError, match=r"client-0\.safetensors cannot be read"):
        load_states(RecordDict(), "run", file)


def test_the_context_comes_before_the_file(tmp_path: Path) -> None:
    file, records = state_file(tmp_path, "run", 0), RecordDict()
    save_states(RecordDict(), walked([Moment(0, 1, 1)]), file)
    newer = walked([Moment(0, 1, 1), Moment(0, 2, 1)])
    save_states(records, newer, None)
    assert same(load_states(records, "run", file), newer)


def test_a_tensor_that_an_exchange_leaves_as_it_was_is_saved_too(tmp_path: Path) -> None:
    """A rule returns {**state, new}: what it does not renew is the same tensor as before."""
    old = state(1)
    new = {**old, "new": torch.ones(1)}
    states = States("run").after(Moment(0, 1, 1), "x", old).after(Moment(0, 1, 2), "x", new)
    file = state_file(tmp_path, "run", 0)
    save_states(RecordDict(), states, file)
    assert same(load_states(RecordDict(), "run", file), states)
