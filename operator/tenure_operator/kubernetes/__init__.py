"""The one package that writes to and reads from the Kubernetes API (lightkube); kopf only brings events.

Objects are plain JSON mappings everywhere in the operator. Errors of the library end here:

    KubernetesError
    ├── Unreachable   no answer, or none that means anything: nothing may be concluded from it
    ├── Conflict      somebody else changed the object meanwhile, or it is another object of that name
    └── Refused       the API server says no, with a sentence
"""
