from dataclasses import replace

from quant.manifest import METHOD_NAMES
from quant.recipes import METHODS, SETTINGS, storage_of

CPU, QUICK = SETTINGS["cpu"], SETTINGS["quick"]


def test_large_inputs_are_moved_into_weights_only_where_nothing_is_learned():
    for name in ("omq", "mpq", "mpq_plus", "mpq_budget"):
        method = METHODS.get(name)
        assert storage_of(method, CPU).smooth == "never"
        assert storage_of(method, QUICK) == method.storage
        assert method.storage.smooth == "helpful"


def test_who_asks_for_smoothing_gets_it():
    for smooth in ("never", "always", "helpful"):
        asked = replace(CPU, smooth=smooth)
        assert all(storage_of(METHODS.get(name), asked).smooth == smooth for name in METHODS)


def test_the_published_form_and_those_that_never_smooth_stay_as_they_are():
    for name in ("mpq_release", "svdquant", "efficientdm", "trd", "minmax"):
        assert storage_of(METHODS.get(name), CPU) == METHODS.get(name).storage


def test_folders_may_name_every_method_and_no_other():
    assert sorted(METHODS) == sorted(METHOD_NAMES)
