"""An installation -> what it holds, as a software bill of materials: CycloneDX 1.6, JSON.

    python -m cosytune.sbom > sbom.json      # docker/build.sh does it in the image that it has built

Listed are the packages of the lock, Debian's, upstream's code with the patches on it, and the weights that come along;
versions and licences as each of them states its own. Exit status 1 where the environment is not the lock's.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType, Diff, Patch, PatchClassification, Pedigree
from cyclonedx.model.license import DisjunctiveLicense, License
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

import cosytune
from cosytune import environment, files
from cosytune.base import shipped
from cosytune.errors import UserError, run_main
from cosytune.layout import LOCK, ROOT
from cosytune.upstream.manifest import PINNED

_OURS = [DisjunctiveLicense(id="Apache-2.0")]
_VOICE = [DisjunctiveLicense(id="CC-BY-3.0")]
"""Of the voice "Mei", from whose speech the shipped weights were made."""
_STATEMENT = 100
"""Characters: some packages put their whole licence where its name belongs."""


def main() -> int:
    if faults := environment.differences():
        raise UserError(*faults, environment.REMEDY)
    print(JsonV1Dot6(bill()).output_as_string(indent=2))
    return 0


def bill() -> Bom:
    """Everything, each with the address of its kind (purl) where there is one."""
    bom = Bom(components=[*python_packages(), *debian_packages(), upstream(), *weights()])
    bom.metadata.component = root = Component(
        name="CosyTune",
        bom_ref="cosytune",
        version=cosytune.__version__,
        type=ComponentType.APPLICATION,
        licenses=_OURS,
        properties=[Property(name=f"cosytune:{LOCK.relative_to(ROOT)}:sha256", value=files.sha256(LOCK))],
    )
    bom.register_dependency(root, bom.components)
    return bom


def python_packages() -> Iterator[Component]:
    for name, version in environment.locked().items():
        purl = PackageURL("pypi", name=name, version=version)
        yield _library(name, version, purl, _licences(importlib.metadata.metadata(name)))


def _licences(stated: importlib.metadata.PackageMetadata) -> list[License]:
    """The first thing that a package says: an expression, a classifier, a name."""
    classifiers = (line for line in stated.get_all("Classifier") or () if line.startswith("License ::"))
    words = (
        *(stated.get_all("License-Expression") or ()),
        *(line.rsplit(" :: ", 1)[-1] for line in classifiers),
        *(stated.get_all("License") or ()),
    )
    found = next((word for word in words if 0 < len(word) < _STATEMENT), None)
    return [LicenseFactory().make_from_string(found)] if found else []


def debian_packages() -> Iterator[Component]:
    """None where the system is no Debian. Their licences are texts for people: /usr/share/doc/<name>/copyright."""
    if shutil.which("dpkg-query") is None:
        return
    form = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
    query = subprocess.run(["dpkg-query", "--show", "--showformat", form], check=True, capture_output=True, text=True)
    system = platform.freedesktop_os_release()
    release = f"{system['ID']}-{system.get('VERSION_ID', 'unstable')}"
    for line in query.stdout.splitlines():
        status, name, version, architecture = line.split("\t")
        if status.strip() == "ii":
            where = {"arch": architecture, "distro": release}
            purl = PackageURL("deb", system["ID"], name, version, where)
            yield _library(name, version, purl)


def upstream() -> Component:
    """Its code at the pinned commit; each of our patches is named."""
    names = [XsUri(str(path.relative_to(ROOT))) for path in PINNED.patches]
    patches = [Patch(type=PatchClassification.UNOFFICIAL, diff=Diff(url=name)) for name in names]
    purl = PackageURL("github", "funaudiollm", "cosyvoice", PINNED.commit)
    component = _library("CosyVoice", PINNED.commit, purl, _OURS)  # the same as ours
    component.pedigree = Pedigree(patches=patches)
    return component


def _library(name: str, version: str, purl: PackageURL, licences: Iterable[License] = ()) -> Component:
    return Component(
        name=name, version=version, type=ComponentType.LIBRARY, bom_ref=str(purl), purl=purl, licenses=licences
    )


def weights() -> Iterator[Component]:
    """Those of the tiny base and its judges, as they are shipped."""
    for name, entry in shipped.description()["files"].items():
        digest = HashType(alg=HashAlgorithm.SHA_256, content=entry["sha256"])
        yield Component(
            name=f"tiny base: {name}",
            bom_ref=f"tinybase/{name}",
            type=ComponentType.MACHINE_LEARNING_MODEL,
            hashes=[digest],
            licenses=_VOICE,
        )


if __name__ == "__main__":
    run_main(main)
