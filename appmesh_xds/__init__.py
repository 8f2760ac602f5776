"""AWS App Mesh specs to Envoy v3 xDS resources.

import appmesh_xds as am

mesh = am.load("examples/colors")                       # files or folders; raises SpecErrors
snapshot = am.translate(mesh, "virtualNode/gateway")    # everything one Envoy is given
print(snapshot.to_yaml())
"""

from . import envoy, facts, spec
from .errors import AppMeshXdsError, Problem, SpecErrors, TranslationErrors, UsageError
from .mesh import Mesh
from .options import Options
from .readers import Reading, load, loads, read
from .resource import Resource
from .snapshot import Snapshot, translate
from .translator import Change, Translator

__version__ = "0.1.0"

__all__ = [
    # reading
    "Reading",
    "load",
    "loads",
    "read",
    # meshes
    "Mesh",
    "facts",
    "spec",
    # translating
    "Change",
    "Options",
    "Resource",
    "Snapshot",
    "Translator",
    "envoy",
    "translate",
    # what goes wrong
    "AppMeshXdsError",
    "Problem",
    "SpecErrors",
    "TranslationErrors",
    "UsageError",
]
