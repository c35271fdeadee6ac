"""The service: all that knows this provider's API, from the ids asked to what the answers say.

``api`` has every name of the API. ``collect`` asks (``fetch`` insists and splits, ``pace`` says how
fast, ``client`` makes one request, ``transport`` carries it); ``decode`` reads what came; ``names``
tells whether it names somebody who is forgotten.
"""
