"""AWS App Mesh specs to Envoy v3 xDS resources."""

__version__ = "0.1.0"
