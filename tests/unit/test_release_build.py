"""A release: the same content is the same release, and what doesn't build says why."""

import hashlib
import importlib.util
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils import release_wheels
from ansible.module_utils.release_files import BuildError, tar
from ansible.module_utils.release_lock import read_lock
from ansible.module_utils.release_wheels import check_wheel

MODULE = Path(__file__).parents[2] / "plugins/modules/release_build.py"
SPEC = importlib.util.spec_from_file_location("release_build", MODULE)
release_build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(release_build)

LOCK = "gunicorn==23.0.0 \\\n    --hash=sha256:bbb \\\n    --hash=sha256:aaa\n    # via app\n"


@pytest.fixture
def source(tmp_path):
    tree = tmp_path / "source"
    (tree / "app").mkdir(parents=True)
    (tree / "app/main.py").write_text("print('hello')\n")
    (tree / "requirements.txt").write_text(LOCK)
    return tree


@pytest.fixture
def downloads(monkeypatch):
    """Stand in for the package index; count how often it is asked."""
    asked = []

    def collect(lock, python, machine, directory):
        asked.append(lock)
        wheel = Path(directory, "gunicorn-23.0.0-py3-none-any.whl")
        wheel.write_bytes(b"wheel")
        return [wheel]

    monkeypatch.setattr(release_wheels, "collect_wheels", collect)
    return asked


def build(tmp_path, tree, check=False, **given):
    params = {
        "name": "shop", "source": str(tree), "ref": "", "package": [], "python": "3.13",
        "lock": "requirements.txt", "machine": "x86_64", "store": str(tmp_path / "store"),
    }  # fmt: skip
    return release_build.build({**params, **given}, check)


def git(tree, *arguments):
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    subprocess.run(["git", "-C", str(tree), *who, *arguments], check=True, capture_output=True)


def test_the_same_content_is_the_same_release_and_is_built_once(tmp_path, source, downloads):
    first = build(tmp_path, source)
    (source / "app/main.py").touch()
    (source / "app/__pycache__").mkdir()
    (source / "app/__pycache__/main.pyc").write_text("x")
    again = build(tmp_path, source)
    assert first["changed"]
    assert not again["changed"]
    assert first["release"] == again["release"]
    assert len(first["release"]) == 12
    assert first["files"] == again["files"]


def test_a_change_of_code_downloads_nothing(tmp_path, source, downloads):
    first = build(tmp_path, source)
    (source / "app/main.py").write_text("print('bye')\n")
    second = build(tmp_path, source)
    assert first["release"] != second["release"]
    assert first["env"] == second["env"]
    assert len(downloads) == 1


def test_a_change_of_the_lock_is_another_environment(tmp_path, source, downloads):
    first = build(tmp_path, source)
    (source / "requirements.txt").write_text(LOCK.replace("23.0.0", "24.0.0"))
    assert build(tmp_path, source)["env"] != first["env"]


def test_an_artifact_that_was_damaged_is_built_again(tmp_path, source, downloads):
    first = build(tmp_path, source)
    (tmp_path / f"store/shop/{first['release']}.tar.gz").write_bytes(b"half")
    again = build(tmp_path, source)
    assert again["changed"]
    assert again["files"] == first["files"]


def test_check_mode_builds_nothing(tmp_path, source, downloads):
    found = build(tmp_path, source, check=True)
    assert found["changed"]
    assert downloads == []
    assert not list((tmp_path / "store").rglob("*.tar.gz"))


def test_the_manifest_holds_the_digest_of_every_file(tmp_path, source, downloads):
    found = build(tmp_path, source)
    store = tmp_path / "store/shop"
    manifest = json.loads((store / f"{found['release']}.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((store / name).read_bytes()).hexdigest() == digest


def test_the_hosts_install_by_the_hash_of_the_wheel_that_is_shipped(tmp_path, source, downloads):
    found = build(tmp_path, source)
    with tarfile.open(tmp_path / f"store/shop/{found['env']}.tar") as archive:
        text = archive.extractfile("requirements.txt").read().decode()
    wanted = hashlib.sha256(b"wheel").hexdigest()
    assert text == f"gunicorn==23.0.0 --hash=sha256:{wanted}\n"


def test_a_git_ref_is_built_as_it_was(tmp_path, source, downloads):
    git(source.parent, "init", "-q", "-b", "main")
    git(source.parent, "add", "source")
    git(source.parent, "commit", "-q", "-m", "one")
    was = build(tmp_path, source)["release"]
    (source / "app/main.py").write_text("print('not committed')\n")
    assert build(tmp_path, source)["release"] != was
    assert build(tmp_path, source, ref="main")["release"] == was


def test_what_git_ignores_is_no_part_of_a_release(tmp_path, source, downloads):
    git(source, "init", "-q")
    (source / ".gitignore").write_text("local.cfg\n")
    was = build(tmp_path, source)["release"]
    (source / "local.cfg").write_text("secret")
    (source / ".env").write_text("secret")
    assert build(tmp_path, source)["release"] == was


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ("flask\n", "flask has no version or no hash"),
        ("flask==3.0\n", "flask has no version or no hash"),
        ("flask>=3 --hash=sha256:aa\n", "flask has no version or no hash"),
        ("-r other.txt\n", "is not a pinned package"),
        ("# nothing\n", "names no package"),
    ],
)
def test_a_lock_without_pins_says_what_to_type(lock, said):
    with pytest.raises(BuildError, match="uv pip compile --generate-hashes") as error:
        read_lock(lock, "3.13", "x86_64", "requirements.txt")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_markers_are_read_for_the_hosts_and_not_for_this_machine():
    lock = (
        'old==1.0 ; python_version < "3.13" --hash=sha256:aa\n'
        'new==1.0 ; python_version >= "3.13" and sys_platform == "linux" --hash=sha256:bb\n'
        'arm==1.0 ; platform_machine == "aarch64" --hash=sha256:cc\n'
    )
    assert read_lock(lock, "3.13", "x86_64") == ["new==1.0 --hash=sha256:bb"]


def test_the_order_and_comments_of_a_lock_make_no_difference():
    one = "b==1 --hash=sha256:b\n# note\na==1 --hash=sha256:z --hash=sha256:a\n"
    two = "-i https://a.org\na==1 --hash=sha256:a --hash=sha256:z\nb==1 \\\n --hash=sha256:b\n"
    assert read_lock(one, "3.13", "x86_64") == read_lock(two, "3.13", "x86_64")


@pytest.mark.parametrize(
    "name",
    [
        "flask-3.0-py3-none-any.whl",
        "psycopg_c-3.0-cp313-cp313-manylinux_2_28_x86_64.whl",
        "cryptography-45.0-cp311-abi3-manylinux_2_34_x86_64.whl",
        "greenlet-3.0-cp313-cp313-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    ],
)
def test_wheels_of_the_target_are_taken(name):
    check_wheel(name, "3.13", "x86_64")


@pytest.mark.parametrize(
    "name",
    [
        "x-1.0-cp311-cp311-manylinux_2_17_x86_64.whl",
        "x-1.0-cp313-cp313-manylinux_2_17_aarch64.whl",
        "x-1.0-cp313-cp313-musllinux_1_2_x86_64.whl",
        "x-1.0-cp313-cp313-linux_x86_64.whl",  # built on this machine
        "x-1.0.tar.gz",
    ],
)
def test_wheels_of_another_machine_are_refused(name):
    with pytest.raises(BuildError):
        check_wheel(name, "3.13", "x86_64")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ref": "no-such-ref"}, "neither a git ref"),
        ({"source": "/no/such/tree"}, "set app_source"),
        ({"source": ""}, "set app_source"),
        ({"lock": "other.txt"}, "other.txt is missing"),
        ({"name": "My App"}, "app_name"),
    ],
)
def test_what_does_not_build_says_why_in_one_line(tmp_path, source, downloads, given, said):
    with pytest.raises(BuildError, match=said) as error:
        build(tmp_path, source, **given)
    assert "\n" not in str(error.value)
    assert downloads == []


def test_links_out_of_the_source_are_refused(tmp_path, source, downloads):
    (source / "app/inner").symlink_to("main.py")
    build(tmp_path, source)
    (source / "app/outer").symlink_to("../../elsewhere")
    with pytest.raises(BuildError, match="outside the source"):
        build(tmp_path, source)


def test_equal_entries_give_equal_bytes():
    entries = [("b", 0o644, b"2"), ("a", 0o755, b"1"), ("c", 0o777, "a")]
    packed = tar(entries)
    assert packed == tar(list(reversed(entries)))
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert {member.uid for member in archive} == {0}
        assert {member.mtime for member in archive} == {0}
