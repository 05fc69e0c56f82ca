"""The names at the top of the package, and what importing them costs."""

import subprocess
import sys

import pytest

import evenhand


def fresh(code):
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_all_is_what_can_be_imported():
    assert len(set(evenhand.__all__)) == len(evenhand.__all__)
    for name in evenhand.__all__:
        assert getattr(evenhand, name) is not None
    assert sorted(evenhand.__all__) == dir(evenhand)
    listed = fresh("from evenhand import *; print(*[n for n in dir() if n[:2] != '__'], '__version__')")
    assert set(evenhand.__all__) == set(listed)


def test_every_public_object_is_described():
    for name in evenhand.__all__:
        if name != "__version__":
            assert (getattr(evenhand, name).__doc__ or "").strip(), name


def test_no_function_hides_a_module():
    """`evenhand.audit` is a function: a module of that name would replace it when something imports it."""
    for name in evenhand.__all__:
        assert f"evenhand.{name}" not in sys.modules


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = evenhand.nonsense


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert evenhand.__version__ == version("evenhand")


HEAVY = "'numpy', 'scipy', 'torch', 'polars', 'altair', 'jinja2', 'rich', 'sklearn'"


@pytest.mark.parametrize("module", ["evenhand", "evenhand.cli"])
def test_importing_costs_nothing(module):
    assert fresh(f"import sys, {module}; print(*[m for m in ({HEAVY}) if m in sys.modules])") == []


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom evenhand.cli import main\nsys.argv = ['evenhand', '--help']\n"
        "try: main()\nexcept SystemExit as e: assert not e.code\n"
        f"print('loaded:', *[m for m in ({HEAVY}) if m in sys.modules])"
    )
    assert fresh(code)[-1] == "loaded:"


def test_an_audit_needs_neither_torch_nor_a_plotting_library():
    code = (
        "import sys, evenhand\nimport numpy as np\n"
        "y = np.arange(300) % 3 // 2\n"
        "evenhand.audit(logits=np.random.default_rng(0).normal(size=(300, 3)), target=y)\n"
        "print(*[m for m in ('torch', 'altair', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    assert fresh(code) == []
