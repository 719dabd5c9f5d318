"""Wire formats, recognised line by line and mapped onto the records of tailrace v1.

- `tailrace_v1`: what our client writes
- `raymon_file`: what raymon's `RaymonFileLogger` writes (up to 0.0.36)
- `raymon_api`: the flat format of raymon from 0.0.37 on
- `fluent_bit`: any of these inside the envelope of Fluent Bit's Kafka output

`recognise.LineDecoder` puts them together.
"""
