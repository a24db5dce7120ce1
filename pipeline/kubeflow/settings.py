"""Settings of the pipeline on Kubeflow."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from trainer_module.settings import Settings

# What the launcher of the open-source backend can read and write; it mounts nothing else for a task.
OBJECT_STORES = ("minio://", "s3://", "gs://")
NVIDIA_GPU = "nvidia.com/gpu"

_DNS_NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"


def _matches(pattern: str, what: str) -> AfterValidator:
    """Requires a form that the cluster would refuse the lack of, only later."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}")
        return value

    return AfterValidator(check)


def _number_as_text(value: Any) -> Any:
    """Takes `cpu: 2` as Kubernetes does, which YAML reads as a number."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    BeforeValidator(_number_as_text),
    _matches(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?", "an amount as Kubernetes writes it, such as 2, 500m or 8Gi"),
]
Name = Annotated[
    str,
    _matches(_DNS_NAME, "the name of an object in the cluster: lower-case letters, digits, - and . (no value of it)"),
]
MountPath = Annotated[str, _matches(r"/[^:\s]+", "an absolute path")]


class Toleration(Settings):
    """A taint of nodes that pods may run on all the same."""

    key: str | None = Field(None, description="Key of the taint; unset: any.")
    operator: Literal["Exists", "Equal"] = Field("Exists", description="Exists, or Equal to value.")
    value: str | None = Field(None, description="Value of the taint, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint; unset: any."
    )

    @model_validator(mode="after")
    def _value_goes_with_equal(self) -> Toleration:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("a toleration has a value if its operator is Equal, and only then")
        if self.key is None and self.operator == "Equal":
            raise ValueError("a toleration whose operator is Equal needs a key")
        return self


class GroupSettings(Settings):
    """What the pods of a group of components get."""

    cpu: Quantity = Field("2", description="CPUs requested, and the limit, for example 2 or 500m.")
    memory: Quantity = Field("8Gi", description="Memory requested, and the limit.")
    gpu: int = Field(0, ge=0, le=64, description="Accelerators.")
    gpu_type: str | None = Field(
        None, description=f"Resource name of the accelerator, for example {NVIDIA_GPU}, which is what unset means."
    )
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field([], description="Taints that pods tolerate: key, operator, value, effect.")
    shm: Quantity | None = Field(None, description="Size of /dev/shm, which several GPUs talk through; unset: 64Mi.")
    scratch: Quantity | None = Field(
        None, description="Size of a volume at /tmp, for read-only roots and small nodes; unset: none."
    )
    retries: int = Field(2, ge=0, le=10, description="How often a task that failed is tried again.")
    retry_backoff_s: int = Field(60, ge=1, le=3600, description="Seconds before the first retry; doubles each time.")
    timeout_s: int | None = Field(None, ge=1, description="Seconds after which a pod is stopped; unset: never.")

    @model_validator(mode="after")
    def _accelerator_is_whole(self) -> GroupSettings:
        if self.gpu_type is not None and not self.gpu:
            raise ValueError(f"gpu_type is {self.gpu_type}, but gpu is 0: set gpu to how many, or leave gpu_type out")
        if self.gpu_type is not None and not re.fullmatch(rf"{_DNS_NAME}/[-A-Za-z0-9_.]+", self.gpu_type):
            raise ValueError(f"gpu_type must be a resource name such as {NVIDIA_GPU}, not {self.gpu_type}")
        return self


class ResourcesSettings(Settings):
    """The groups of components, and what each one's pods get."""

    data: GroupSettings = GroupSettings()
    trainer: GroupSettings = GroupSettings()
    compression: GroupSettings = GroupSettings()
    gates: GroupSettings = GroupSettings()
    push: GroupSettings = GroupSettings()


class VolumeSettings(Settings):
    """A PersistentVolumeClaim that every pod mounts."""

    claim: Name = Field(description="Name of the PersistentVolumeClaim.")
    mount_path: MountPath = Field(description="Where pods see it.")
    sub_path: str = Field("", description="Folder of the volume that is mounted; unset: all of it.")


class SecretSettings(Settings):
    """A Secret that every pod gets, by its name: as environment variables or as files."""

    name: Name = Field(description="Name of the Secret.")
    env: dict[str, str] = Field({}, description="Environment variable of each key of the Secret: {key: VARIABLE}.")
    mount_path: MountPath | None = Field(None, description="Folder in which each key is a file.")

    @model_validator(mode="after")
    def _is_given_somehow(self) -> SecretSettings:
        if not self.env and self.mount_path is None:
            raise ValueError(f"secret {self.name} needs env ({{key: VARIABLE}}) or mount_path")
        for key, variable in self.env.items():
            if not re.fullmatch(r"[-._A-Za-z0-9]+", key) or not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
                raise ValueError(
                    f"secret {self.name}: env maps a key of the Secret to the name of a variable in upper case, "
                    "{key: VARIABLE}; what the Secret holds stays in the cluster"
                )
        return self


class KubeflowSettings(Settings):
    """The pipeline on Kubeflow Pipelines."""

    image: str | None = Field(None, description="Image of all pods, made from kubeflow/Dockerfile; needed to compile.")
    gpu_image: str | None = Field(None, description="Image of pods with accelerators; unset: image.")
    pipeline_root: str | None = Field(
        None, description="Object store for artifacts: minio://, s3:// or gs:// with a bucket; needed to compile."
    )
    checkpoints_dir: str | None = Field(
        None,
        description="Folder on a volume, or gs:// URI, where a training that was killed goes on from; unset: none, it "
        "starts anew.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When nodes fetch the image."
    )
    image_pull_secrets: list[Name] = Field([], description="Names of the Secrets that open the image's registry.")
    run_as_user: int | None = Field(
        None, ge=1, description="User id of the pods, where the cluster asks for one; unset: that of the image."
    )
    service_account: Name | None = Field(
        None, description="Service account of the pods; given with trimline kubeflow submit. Unset: Kubeflow's own."
    )
    volumes: list[VolumeSettings] = Field(
        [], description="PersistentVolumeClaims that pods mount: claim, mount_path, sub_path."
    )
    secrets: list[SecretSettings] = Field([], description="Secrets that pods get, by name: name, env or mount_path.")
    resources: ResourcesSettings = ResourcesSettings()
    host: str | None = Field(None, description="Address of the Kubeflow Pipelines API, for submit and status.")
    namespace: str | None = Field(None, description="Namespace of the runs, on a Kubeflow with several users.")
    experiment: str = Field("trimline", description="Experiment that runs are filed under.")

    @field_validator("volumes")
    @classmethod
    def _each_claim_once(cls, value: list[VolumeSettings]) -> list[VolumeSettings]:
        for what in ("claim", "mount_path"):
            names = [getattr(volume, what) for volume in value]
            if len(set(names)) < len(names):
                raise ValueError(
                    f"the same {what} is given twice; the backend makes a volume of each, which is refused"
                )
        return value

    @field_validator("image", "gpu_image")
    @classmethod
    def _image_has_no_spaces(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^\s]+", value):
            raise ValueError("must be the name of an image, for example registry/trimline:0.1.0")
        return value

    @field_validator("pipeline_root")
    @classmethod
    def _is_an_object_store(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"(minio|s3|gs)://[a-z0-9][-a-z0-9._]+(/[^?\s]*)?", value):
            raise ValueError(
                "must be an object store that Kubeflow's launcher knows: minio://BUCKET/PATH, s3://... or gs://..."
            )
        return value
