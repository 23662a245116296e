#!/usr/bin/env python3
"""Holds rendered Kubernetes manifests to their schemas, strictly: a field that
the schema does not know is an error, as a misspelt one would silently do nothing.

    .ci/manifests.py FILE...        YAML, of any number of documents

What Kubernetes defines itself is checked against the oldest version that
deploy/kubernetes asks for and against the newest known; the custom resources
against models that were generated from their CustomResourceDefinitions.
"""

import sys

import cloudcoil.pydantic
import kubernetes_validate
import pydantic
import yaml

# Before any model is made of it: unknown fields are refused.
cloudcoil.pydantic.BaseModel.model_config["extra"] = "forbid"

from cloudcoil.models.keda import v1alpha1 as keda  # noqa: E402
from cloudcoil.models.prometheus_operator import v1 as monitoring  # noqa: E402

VERSIONS = ["1.30.0", kubernetes_validate.latest_version()]
CUSTOM = {
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("monitoring.coreos.com/v1", "PodMonitor"): monitoring.PodMonitor,
}


def objections(document):
    """What is wrong with one document, a line each."""
    model = CUSTOM.get((document["apiVersion"], document["kind"]))
    if model:
        try:
            model.model_validate(document)
        except pydantic.ValidationError as error:
            for wrong in error.errors():
                yield f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{'.'.join(map(str, error.path))}: {error.message} (Kubernetes {version})"
        except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.InvalidSchemaError) as error:
            yield f"no schema: {error} (Kubernetes {version})"


def main(paths):
    kinds, wrong = set(), 0
    for path in paths:
        with open(path, encoding="utf-8") as text:
            documents = [it for it in yaml.safe_load_all(text) if it]
        for document in documents:
            kinds.add(document["kind"])
            for objection in objections(document):
                wrong += 1
                print(f"{path}: {document['kind']} {document['metadata']['name']}: {objection}")
    if not kinds:
        sys.exit("no manifests were given")
    if wrong:
        sys.exit(1)
    print(f"valid, strictly, for Kubernetes {' and '.join(VERSIONS)}: {', '.join(sorted(kinds))}")


main(sys.argv[1:])
