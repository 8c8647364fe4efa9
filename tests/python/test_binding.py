"""The ctypes declarations against <gradientd/client.h>: a C compiler says where each field is and what each name is."""

import ctypes
import re
import subprocess

import pytest

from conftest import SOURCE
from gradientd import _binding as binding

HEADER = (SOURCE / "include/gradientd/client.h").read_text()
STRUCTS = {  # C's name -> ours
    re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Struct")).lower(): value
    for name, value in vars(binding).items()
    if name.endswith("Struct")
}


def c_name(name):
    return "gradientd_" + name


def ask_compiler(tmp_path, expressions):
    """The value of each integer expression."""
    source, program = tmp_path / "ask.c", tmp_path / "ask"
    lines = "".join(f'    printf("%lld\\n", (long long)({expression}));\n' for expression in expressions)
    source.write_text(
        f"#include <gradientd/client.h>\n#include <stdio.h>\nint main(void) {{\n{lines}    return 0;\n}}\n"
    )
    subprocess.run(["cc", "-std=c11", "-I", SOURCE / "include", "-o", program, source], check=True)
    values = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()
    return dict(zip(expressions, map(int, values), strict=True))


def test_every_struct_of_the_header_is_declared():
    declared = set(re.findall(r"^struct (gradientd_\w+) \{", HEADER, re.MULTILINE))
    assert {c_name(name) for name in STRUCTS} == declared


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_is_laid_out_as_c_has_it(name, tmp_path):
    struct = STRUCTS[name]
    expected = {f"sizeof(struct {c_name(name)})": ctypes.sizeof(struct)}
    for field, _ in struct._fields_:
        own = getattr(struct, field)
        expected[f"offsetof(struct {c_name(name)}, {field})"] = own.offset
        expected[f"sizeof(((struct {c_name(name)} *)0)->{field})"] = own.size
    assert ask_compiler(tmp_path, list(expected)) == expected


def test_a_struct_has_the_fields_of_c():
    """A field that is missing at the end, in what would be padding, changes neither size nor offsets."""
    for name, struct in STRUCTS.items():
        (body,) = re.findall(rf"^struct {c_name(name)} \{{\n(.*?)^\}};", HEADER, re.MULTILINE | re.DOTALL)
        body = re.sub(r"//.*", "", body)
        names = re.findall(r"\(\*(\w+)\)\([^)]*\)|(\w+)(?:\[\d+\])?(?=[,;])", body)
        assert [first or second for first, second in names] == [field for field, _ in struct._fields_], name


def c_names(prefix, table):
    """C's enumerators of a table whose keys are their names in small letters."""
    return {prefix + key.upper(): value for key, value in table.items() if key is not None}


ENUMERATORS = {
    "GRADIENTD_OK": binding.OK,
    "GRADIENTD_SKIPPED": binding.SKIPPED,
    "GRADIENTD_DETACHED": binding.DETACHED,
    "GRADIENTD_SUCCESS": binding.SUCCESS,
    "GRADIENTD_FAILURE": binding.FAILURE,
    **c_names("GRADIENTD_", binding.RULES),
    **c_names("GRADIENTD_", binding.MAXIMA),
    **c_names("GRADIENTD_", binding.ELEMENT_TYPES),
    "GRADIENTD_RULE_DEFAULT": binding.BIAS_CORRECTIONS[None],
    "GRADIENTD_BIAS_CORRECTED": binding.BIAS_CORRECTIONS[True],
    "GRADIENTD_NO_BIAS_CORRECTION": binding.BIAS_CORRECTIONS[False],
    "GRADIENTD_SHARED_MEMORY": binding.TRANSPORTS["memory"],
    "GRADIENTD_INLINE": binding.TRANSPORTS["inline"],
    "GRADIENTD_INLINE_DEFLATED": binding.TRANSPORTS["inline_deflated"],
    "GRADIENTD_PER_GROUP_AUTO": binding.PER_GROUP[None],
    "GRADIENTD_PER_GROUP_ON": binding.PER_GROUP[True],
    "GRADIENTD_PER_GROUP_OFF": binding.PER_GROUP[False],
    "GRADIENTD_HPARAM_NUMBER": binding.HPARAM_NUMBER,
    "GRADIENTD_HPARAM_TEXT": binding.HPARAM_TEXT,
    "GRADIENTD_HPARAM_FLAG": binding.HPARAM_FLAG,
}


def test_enumerators_have_the_values_of_c(tmp_path):
    assert ask_compiler(tmp_path, list(ENUMERATORS)) == ENUMERATORS


def test_every_enumerator_of_the_header_is_known():
    bodies = re.findall(r"^enum gradientd_\w+ \{\n(.*?)^\};", HEADER, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^ +(GRADIENTD_\w+)", "\n".join(bodies), re.MULTILINE)) == set(ENUMERATORS)


def test_every_function_of_the_header_is_bound():
    declared = set(re.findall(r"^GRADIENTD_API .*?\b(gradientd_\w+)\(", HEADER, re.MULTILINE))
    bound = {name for name in declared if getattr(binding.library, name).argtypes is not None}
    assert declared and bound == declared
