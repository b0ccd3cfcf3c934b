"""Training, evaluation and release of the models in hubmodels. Nothing in hubmodels imports this package."""

from importlib.util import find_spec

if missing := [name for name in ("accelerate", "psutil") if find_spec(name) is None]:
    raise ModuleNotFoundError(f"training needs {', '.join(missing)}: in a clone, pip install -e '.[train]'")
