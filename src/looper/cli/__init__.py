"""The door: parse, wire, call, print."""
