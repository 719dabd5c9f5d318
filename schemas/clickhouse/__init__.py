"""ClickHouse's side of the contract: how to reach it (`connection`) and the numbered migrations (`migrate`)."""
