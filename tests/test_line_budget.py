"""The budget of lines: the project keeps it, and what exceeds it is found."""

import pytest

from tests.apparatus.line_budget import MOST_IN_ALL, count_lines, excesses, is_kernel, room_of


def test_the_project_keeps_its_budget():
    assert excesses(count_lines()) == []


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ({"shared/run/long.py": 401}, "shared/run/long.py: 401 lines, at most 400"),
        (
            {f"shared/run/{i}.py": 400 for i in range(66)},
            f"all without tests: 26,400 lines, at most {MOST_IN_ALL:,}",
        ),
        ({f"shared/spec/{i}.py": 400 for i in range(16)}, "the kernel: 6,400 lines, at most 6,000"),
    ],
)
def test_an_excess_is_found(lines, found):
    assert excesses(lines) == [found]
    assert excesses({f"tests/{path}": count for path, count in lines.items()}) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("jax_impl/fast.py", True),
        ("tf_impl/cluster.py", False),
        ("shared/reference/step.py", True),
        ("shared/run/folder.py", False),
        ("tests/jax_impl/train.py", False),
    ],
)
def test_the_kernel_is_what_people_read(path, expected):
    assert is_kernel(path) is expected


def test_rooms():
    assert room_of("benchmarks/run.py") == "benchmarks"
    assert room_of("benchmarks/show/page.py") == "benchmarks/show"
    assert room_of("tests/apparatus/fuzz/readers/npz.py") == "tests"
