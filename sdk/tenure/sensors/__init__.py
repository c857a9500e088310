"""Sensors: what turns events of the outside world, and of time, into signals for one agent.

    class Door(sensors.Sensor[DoorConfig], signals=["door.opened"]):
        async def events(self):                          # I/O, run and restarted by the shell
            async for state in watch(self.config.pin):
                yield state

        def on_event(self, state):                       # pure: effects as values
            return [sensors.Report("door.opened")] if state == "open" else []

docs/sdk/sensors.md has it all with examples; `tenure.testing` has what tests of them need.
"""

from tenure.sensors._builtin import Beats, Bus, BusConfig, Cron, CronConfig, Heartbeat, HeartbeatConfig
from tenure.sensors._effects import After, Cancel, Deliver, Ending, Finish, Report, SensorEffect
from tenure.sensors._group import SensorRunning, Sensors
from tenure.sensors._runner import ENDED, FAILED, Policy, SensorRunner
from tenure.sensors._sensor import Sensor, SensorConfig, SensorInfo, describe

__all__ = [
    "ENDED",
    "FAILED",
    "After",
    "Beats",
    "Bus",
    "BusConfig",
    "Cancel",
    "Cron",
    "CronConfig",
    "Deliver",
    "Ending",
    "Finish",
    "Heartbeat",
    "HeartbeatConfig",
    "Policy",
    "Report",
    "Sensor",
    "SensorConfig",
    "SensorEffect",
    "SensorInfo",
    "SensorRunner",
    "SensorRunning",
    "Sensors",
    "describe",
]
