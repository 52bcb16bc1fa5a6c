"""The stages of a conversion. Each runs in a process of its own, so that a tool that crashes is an error with a name.

A stage is a module with frozen dataclasses ``Job`` and ``Result``, and ``run(job, say) -> Result``. Both cross the
process border as JSON; arrays and models cross it as files in the work folder.
"""
