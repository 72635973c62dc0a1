"""Airflow's simple sign-in, with one more role: an account that may start the pipeline and follow it.

The prediction API triggers the pipeline for its administrators, so it holds a password of Airflow's. With
`trigger:pipeline_trigger` in AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS that password can start `ml_pipeline` and read
how its runs stand, and nothing else: not change, pause, clear or delete, not read logs, code, XComs, variables,
connections or the configuration, and no other DAG. The roles that come with Airflow are wider: even its smallest
one reads everything, and the one that may trigger may also clear and delete.

In use with AIRFLOW__CORE__AUTH_MANAGER=pipeline_auth_manager.PipelineAuthManager and this folder on PYTHONPATH.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.common.types import MenuItem

DAG_ID = "ml_pipeline"
ROLE = "PIPELINE_TRIGGER"
# (method, what of the DAG); None is the DAG itself: name, state, trigger form.
ALLOWED = frozenset(
    {
        ("GET", None),
        ("GET", DagAccessEntity.RUN),
        ("POST", DagAccessEntity.RUN),
        ("GET", DagAccessEntity.TASK_INSTANCE),
    }
)


def only_triggers(user: SimpleAuthManagerUser) -> bool:
    """Tells whether a user has the narrow role."""
    return (user.role or "").upper() == ROLE


class PipelineAuthManager(SimpleAuthManager):
    """The simple auth manager with the role `pipeline_trigger`.

    Every decision of the parent goes through `_is_authorized` or `_is_admin`: the narrow role is
    refused there, so what Airflow may add later is refused as well.
    """

    def is_authorized_dag(
        self,
        *,
        method: str,
        user: SimpleAuthManagerUser,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
    ) -> bool:
        """Allows the narrow role its four actions on the one DAG; others as the parent does."""
        if only_triggers(user):
            named = details.id if details else None
            return named == DAG_ID and (str(method), access_entity) in ALLOWED
        return super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )

    def filter_authorized_menu_items(
        self, menu_items: list[MenuItem], *, user: SimpleAuthManagerUser
    ) -> list[MenuItem]:
        """Shows the narrow role no menu: it is for programs."""
        return (
            []
            if only_triggers(user)
            else super().filter_authorized_menu_items(menu_items, user=user)
        )

    def is_authorized_hitl_task(
        self, *, assigned_users: set[str], user: SimpleAuthManagerUser
    ) -> bool:
        """Lets the narrow role answer for nobody."""
        return not only_triggers(user) and super().is_authorized_hitl_task(
            assigned_users=assigned_users, user=user
        )

    @staticmethod
    def _is_admin(user: SimpleAuthManagerUser) -> bool:
        return not only_triggers(user) and SimpleAuthManager._is_admin(user)

    @staticmethod
    def _is_authorized(*, user: SimpleAuthManagerUser, **options: Any) -> bool:
        return not only_triggers(user) and SimpleAuthManager._is_authorized(user=user, **options)
