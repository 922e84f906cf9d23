"""The version of this gateway, which setup.cfg reads as well."""

VERSION = "0.1.0"
