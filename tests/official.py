"""A small network, and its weights as the authors' program stores them."""

import torch

from sk_momkd.models.momkd import MoMKD

N_FEATURES, N_GENES, DIM, WIDTH, N_COMPONENTS = 12, 10, 8, 6, 3
THEIR_NAMES = {
    "omics_branch.encoder.": "rna_tower.encoder.",
    "omics_branch.decoder.": "rna_decoder.decoder.",
    "omics_branch.projector.": "rna_projector.",
    "encoder.gat": "wsi_encoder.gat",
    "encoder.residual.": "wsi_encoder.res_proj1.",
    "encoder.norm": "wsi_encoder.ln",
    "patch_projector.": "wsi_patch_projector.",
    "slide_projector.": "wsi_pool_projector.",
    "head.": "wsi_classifier_proto.",
    "log_tau": "attn_log_tau",
}


def network(in_features=N_FEATURES, identity=False):
    torch.manual_seed(0)
    module = MoMKD(
        in_features,
        N_GENES,
        2,
        dim=DIM,
        projection_dim=WIDTH,
        n_components=N_COMPONENTS,
        head_hidden_dim=5,
        omics_hidden_dim=7,
        learn_tau=True,
        identity_residual=identity,
    )
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def their_state(module):
    """The weights of a network under the names of the authors' program."""
    state = {}
    for name, tensor in module.state_dict().items():
        if name == "memory.rows":
            for prefix, rows in zip(("mem_neg", "mem_pos"), tensor, strict=True):
                state[f"{prefix}._codebook.embed"] = rows[None]
                state[f"{prefix}._codebook.initted"] = torch.tensor([True])
                state[f"{prefix}._codebook.cluster_size"] = torch.zeros(1, len(rows))
                state[f"{prefix}._codebook.embed_avg"] = rows[None].clone()
            continue
        ours = next(prefix for prefix in THEIR_NAMES if name.startswith(prefix))
        state[THEIR_NAMES[ours] + name.removeprefix(ours)] = tensor
    return state
