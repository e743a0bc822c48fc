"""What `torch.nn.attention.varlen.varlen_attn` computes, segment by segment, as its documentation and flash attention define it."""

import torch


def varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False
):
    """[Tq, H, D]. A window of (left, 0) is causal at the bottom right: query i of m sees key j of n when
    i + n - m - left <= j <= i + n - m."""
    assert query.dim() == key.dim() == 3 and cu_seq_q.dtype == cu_seq_k.dtype == torch.int32 and window_size[1] == 0
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise ValueError("Expect query and key/value to have the same number of heads")
    assert int(cu_seq_q[-1]) == len(query) and int(cu_seq_k[-1]) == len(key) == len(value)
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], 1) for x in (key, value))
    outputs = []
    for s in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[s] : cu_seq_q[s + 1]]
        k, v = (x[cu_seq_k[s] : cu_seq_k[s + 1]] for x in (key, value))
        assert len(q) <= max_q and len(k) <= max_k
        last = torch.arange(len(q))[:, None] + len(k) - len(q)
        place = torch.arange(len(k))[None]
        seen = (place <= last) & ((place >= last - window_size[0]) if window_size[0] >= 0 else True)
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v))
    return torch.cat(outputs)


def varlen_attn_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
    """The contract of torch 2.11, which has no word for grouped heads."""
    return varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale=scale, window_size=window_size)
