"""The API, described from its code: ``/apidoc`` for people, ``/apidoc/openapi.json`` for programs."""
