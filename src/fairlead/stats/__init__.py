"""Numbers about people and models: agreement, aggregation of votes, intervals, diversity. numpy and scipy only."""
