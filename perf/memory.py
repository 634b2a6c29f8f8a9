"""Peak memory: see :mod:`expunge.plan.peak`."""

from expunge.plan.peak import now as now
from expunge.plan.peak import peak as peak
from expunge.plan.peak import reset_peak as reset_peak
