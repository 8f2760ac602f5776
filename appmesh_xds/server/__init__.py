"""The control plane: a server that Envoys get their resources from, over aggregated xDS."""
