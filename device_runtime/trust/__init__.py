"""What a device believes once it was handed a root: plans and models that TUF metadata lead to, and nothing else.

    anchor     the first root, handed over; whether there is one decides whether plans must be signed
    fetchers   where metadata come from: an artifact of the usual transfer, or a web server
    client     the TUF client with a clock that does not go backwards
    memory     what is kept on disk: the metadata, the time they speak of, the last plans
    verifier   opens signed plans

Only this package needs tuf and securesystemslib, and only ``anchor`` is imported where there is no trust.
"""
