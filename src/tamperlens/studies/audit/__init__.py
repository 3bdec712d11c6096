"""The parts of an audit.

Contents: `inputs` (settings, prompt sets), `cost` (what each stage will cost), `stages` (what is measured,
one function a stage), `layers` (cosines by layer with their null), `measures` (how numbers are written),
`tables` (CSV rows, paired tests), `figures`, `words` (headline and findings), `page` (the report),
`result` (a finished audit).
"""

from tamperlens.base.boundary import guard
from tamperlens.studies.audit.result import AuditResult
from tamperlens.studies.audit.running import audit, default_folder

__all__ = ["AuditResult", "audit", "default_folder"]

guard(globals(), __all__)
