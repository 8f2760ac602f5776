"""Pure functions from specs to Envoy's messages.

Each public function is named after the message it returns and takes everything it needs as arguments.
`node` and `gateway` put them together for one proxy.
"""
