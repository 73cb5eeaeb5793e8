"""mas-edge: federated multi-task learning on edge devices over MQTT (Merge and Split).

This module stays empty of work: a device imports ``mas_edge.protocol`` and must not pay for anything else.
"""
