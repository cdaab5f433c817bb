"""Everything that a config of a format can state, and what is done with it.

honoured   it decides what the SAE computes, or what it is given; where, the text says
refused    some value of it means what is not read here; the reader raises a SourceError that says so
warned     some value of it may change what the SAE is given, and is not followed; a warning says so
harmless   it changes neither

What stands in no table is unknown, and a warning names it: a format may have grown a statement that changes the result.
SAELens' keys are those of its config classes of all versions (from the package and its public history); a version 1 to
5 config is flat, and some of these are under `metadata` since version 6. Tests compare with the installed packages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rational_sae.support.safe_text import printable

Kind = Literal["honoured", "refused", "warned", "harmless"]


@dataclass(frozen=True)
class Statement:
    """One key of a config."""

    kind: Kind
    why: str


def _all(kind: Kind, why: str, keys: str) -> dict[str, Statement]:
    return dict.fromkeys(keys.split(), Statement(kind, why))


TRAINING = "how it was trained; the weights are what came out"

OURS = (
    _all("honoured", "the rational gate", "coefficients gain right_slope mode token_scale looks")
    | _all("harmless", "kept of the SAE that it was made from", "labels distilled norm_scaling_factor repository")
    | _all("harmless", "kept of the SAE that it was made from", "config dict_class license licence")
)
"""What `export` writes beside SAELens' own keys."""

SAELENS = (
    OURS
    | _all("honoured", "the formula; other architectures are refused by name", "architecture k threshold")
    | _all("refused", "any activation but relu and topk", "activation_fn activation_fn_str activation_fn_kwargs")
    | _all("honoured", "shapes are checked against the tensors", "d_in d_sae")
    | _all("honoured", "b_dec is subtracted from the input, or not", "apply_b_dec_to_input")
    | _all("honoured", "decoder norms are folded into encoder and decoder", "rescale_acts_by_decoder_norm")
    | _all(
        "warned",
        "layer_norm and constant_norm_rescale are honoured; a scaling or whitening that belongs into the weights is"
        " left out, as SAELens does at inference, with a warning unless SAELens' table has the factor",
        "normalize_activations",
    )
    | _all("harmless", "heads apart or side by side; x is one vector a token", "reshape_activations")
    | _all("honoured", "the factor is folded into W_dec", "finetuning_scaling_factor uses_scaling_factor")
    | _all("honoured", "defaults of --model and --hook", "model_name hook_name hook_point hook_point_layer")
    | _all("refused", "an SAE of one attention head", "hook_head_index hook_point_head_index hook_head_indices")
    | _all("honoured", "a transcoder's output", "d_out hook_name_out")
    | _all("harmless", "hook_name_out says it", "hook_layer_out")
    | _all("honoured", "the owner's place, where hook_name is of another", "hf_hook_name hf_hook_name_out")
    | _all("refused", "a transcoder of another format", "is_transcoder out_hook_point out_hook_point_layer")
    | _all("refused", "an SAE of one attention head", "hook_head_index_out")
    | _all("refused", "a crosscoder", "hook_names hook_layers")
    | _all("honoured", "center_writing_weights; its own table", "model_from_pretrained_kwargs")
    | _all("warned", "anything in it", "model_kwargs variant")
    | _all("warned", "any class but those that give the residual stream as it is", "model_class_name model_class")
    | _all("warned", "any but the plain one", "sae_class_name sae_type")
    | _all("honoured", "the default of --context", "context_size")
    | _all("honoured", "the default of --bos", "prepend_bos")
    | _all("honoured", "only these positions count", "seqpos_slice start_pos_offset end_pos_offset")
    | _all("warned", "special tokens never count; a list of other tokens is not followed", "exclude_special_tokens")
    | _all("warned", "chat templates are not applied", "use_chat_formatting")
    | _all("harmless", "the hook's name says it", "hook_layer final_hook_layer")
    | _all("harmless", "weights are read as float32", "dtype autocast autocast_dtype autocast_lm")
    | _all("harmless", "where it was trained", "device llm_device act_store_device")
    | _all("harmless", "who wrote it", "sae_lens_version sae_lens_training_version neuronpedia_id meta metadata")
    | _all("harmless", "which text; yours is given by --text", "dataset_path dataset_trust_remote_code streaming")
    | _all("harmless", "which text; yours is given by --text", "is_dataset_tokenized hf_dataset_path dataset_num_rows")
    | _all("harmless", "a document is never joined to another here", "disable_concat_sequences begin_batch_token")
    | _all("harmless", "a document is never joined to another here", "sequence_separator_token begin_sequence_token")
    | _all("harmless", "a document is never joined to another here", "exclude_bos_between_sequences")
    | _all("harmless", "what training measured", "l0 num_dead_features")
    | _all(
        "harmless",
        "who trained the SAE, and how",
        "trained_by training_architecture training_architecture_details training_passes training_split",
    )
    | _all("harmless", "how it is computed", "use_error_term use_sparse_activations sparse_intermediate")
    | _all("harmless", "only what its own evaluation read", "hook_eval hook_point_eval evaluator")
    | _all(
        "harmless",
        TRAINING,
        "activation_save_path activations_mixing_fraction adam_beta1 adam_beta2 aux_loss_coefficient"
        " b_dec_init_method batches_in_buffer buffer_size_gb cached_activations_path checkpoint_path"
        " coefficient_warm_up_steps compile_llm compile_sae data dead_feature_estimation_method"
        " dead_feature_threshold dead_feature_window decoder_heuristic_init decoder_heuristic_init_norm"
        " decoder_init_norm decoder_orthogonal_init eval_batch_size_prompts eval_every_n_wandb_logs"
        " expansion_factor feature_probability feature_reinit_scale feature_sampling_method"
        " feature_sampling_window finetuning_method finetuning_tokens fisher_lambda_term from_pretrained_path"
        " hf_is_private_repo hf_num_shards hf_repo_id hf_revision include_final_checkpoint"
        " init_encoder_as_decoder_transpose initial_threshold jumprelu_bandwidth jumprelu_init_threshold"
        " jumprelu_kernel jumprelu_sparsity_loss_mode jumprelu_ste_to_input jumprelu_tanh_scale l0_coefficient"
        " l0_lambda l0_warm_up_steps l1_coefficient l1_normalization_fn l1_warm_up_steps l1_warmup_steps"
        " llm_compilation_mode log_activations_store_to_wandb log_optimizer_state_to_wandb log_to_wandb"
        " log_weights_to_wandb logger logging lp_norm lr lr_decay_steps lr_end lr_scheduler_name"
        " lr_warm_up_steps matryoshka_widths model model_batch_size model_training_steps"
        " mse_loss_normalization n_anticorrelated_pairs n_batches_for_norm_estimate n_batches_in_buffer"
        " n_buffers n_checkpoints n_correlated_pairs n_eval_batches n_eval_seqs n_features n_hidden"
        " n_restart_cycles n_sae_training_tokens n_shuffles_final n_shuffles_in_entire_dir"
        " n_shuffles_with_last_section new_cached_activations_hub_repo new_cached_activations_path noise_scale"
        " normalize_decoder normalize_sae_decoder output_path pre_act_loss_coefficient prefetch_llm_batches"
        " resample_batches resampling resume resume_from_checkpoint rows_in_buffer run_name sae"
        " sae_compilation_mode sae_metadata save_final_checkpoint scale_sparsity_penalty_by_decoder_norm seed"
        " shuffle shuffle_buffer_size shuffle_every_n_buffers sparsity_coefficient"
        " sparsity_penalty_decoder_norm_lp_norm store_batch_size store_batch_size_prompts system target_l0"
        " tokens_in_buffer tokens_per_buffer topk_threshold_lr total_training_samples total_training_steps"
        " total_training_tokens train_batch_size train_batch_size_samples train_batch_size_tokens train_epochs"
        " training training_tokens unique_id updated_cfg_dict use_cached_activations use_fisher"
        " use_ghost_grads use_matryoshka_aux_loss verbose wandb_entity wandb_id wandb_log_frequency"
        " wandb_project",
    )
    | _all("refused", "of architectures that are not read", "activation_normalization_factor bottleneck_factor n_heads")
    | _all("refused", "of architectures that are not read", "n_attn_layers kval_topk sae_diff_type tied_weights")
    | _all(
        "refused", "of architectures that are not read", "residual_threshold max_iterations stop_on_duplicate_support"
    )
)

FROM_PRETRAINED = (
    _all(
        "honoured",
        "x is read without its mean over d_in, where the model's norms take it off",
        "center_writing_weights",
    )
    | _all("refused", "other weights than the model's newest, unless --model is given", "revision checkpoint_index")
    | _all(
        "refused", "other weights than the model's newest, unless --model is given", "checkpoint_value checkpoint_label"
    )
    | _all("warned", "the model is read as its files have it", "quantization_config load_in_8bit load_in_4bit")
    | _all("harmless", "the residual stream stays as it is", "fold_ln center_unembed first_n_layers")
    | _all("honoured", "at hook_z, what biases of values add to the heads goes into b_dec", "fold_value_biases")
    | _all("harmless", "the residual stream stays as it is", "refactor_factored_attn_matrices default_padding_side")
    | _all("harmless", "--bos, or prepend_bos, says it", "default_prepend_bos")
    | _all("harmless", "--context says it", "n_ctx")
    | _all(
        "harmless", "where and in what the model runs", "device move_to_device n_devices device_map dtype torch_dtype"
    )
    | _all("harmless", "where and in what the model runs", "low_cpu_mem_usage attn_implementation")
    | _all("harmless", "only who runs a job says that", "trust_remote_code token use_auth_token")
    | _all("harmless", "where the model's files lie", "cache_dir local_files_only force_download")
)
"""Of `model_from_pretrained_kwargs`: arguments of TransformerLens' and transformers' `from_pretrained`."""

GEMMA_SCOPE = (
    _all("honoured", "default of --model and --hook", "model_name hf_hook_point_in")
    | _all("honoured", "what a transcoder predicts; an SAE goes out where it comes in", "hf_hook_point_out")
    | _all("refused", "any but an SAE and a per-layer transcoder", "type")
    | _all("refused", "any but jump_relu", "architecture")
    | _all("refused", "anything but what the tensors say", "affine_connection affine_skip_connection")
    | _all("harmless", "shapes are those of the tensors", "width d_in d_sae d_model")
    | _all("harmless", "what training aimed at", "l0 target_l0 layer seed dtype")
)

DICTIONARY_LEARNING = (
    _all("honoured", "the formula; other classes are refused by name", "dict_class k")
    | _all("honoured", "defaults of --model and --hook", "lm_name layer submodule_name io")
    | _all("honoured", "the default of --context", "ctx_len")
    | _all("harmless", "its trainer multiplies it back into the biases when it saves", "norm_factor")
    | _all("harmless", "shapes are those of the tensors", "activation_dim dict_size d_submodule dictionary_size")
    | _all("harmless", "nested prefixes in training; all latents are active afterwards", "group_fractions group_sizes")
    | _all(
        "harmless",
        TRAINING,
        "trainer buffer trainer_class activation_queue_length adaptive_sparsity_penalty anneal_end anneal_start"
        " auxk_alpha bandwidth decay_start device gp_reg_coeff group_weights initial_sparsity_penalty l0_penalty"
        " l1_penalty lambda_warm_steps lr n_ctxs n_sparsity_updates optimizer out_batch_size p_end p_start"
        " refresh_batch_size resample_steps seed set_linear_to_constant sparsity_coefficient sparsity_function"
        " sparsity_loss_queue_length sparsity_penalty sparsity_queue_length sparsity_warmup_steps steps"
        " steps_before_annealing target_l0 threshold_beta threshold_start_step top_k_aux wandb_name warmup_steps"
        " weights_temperature",
    )
)

SPARSIFY = (
    _all("honoured", "the formula", "k d_in num_latents expansion_factor")
    | _all("refused", "any but topk", "activation")
    | _all("refused", "another formula", "transcode skip_connection signed normalize_io")
    | _all("refused", "other encoders and decoders", "encoder_halut encoder_kron encoder_monarch encoder_pkm monet ito")
    | _all("refused", "other encoders and decoders", "matching_pursuit mp_encoder tied_decoder coalesce_topk n_targets")
    | _all("refused", "other encoders and decoders", "n_sources cross_layer post_encoder_scale")
    | _all("harmless", "a loss of training", "multi_topk")
    | _all("harmless", "rows of the stored decoder are what they are", "normalize_decoder")
    | _all("honoured", "defaults of --model and --hook", "model hookpoints layers layer_stride")
    | _all("honoured", "the default of --context", "ctx_len")
    | _all("refused", "other weights than the model's newest, unless --model is given", "revision")
    | _all("warned", "the model is read as its files have it", "load_in_8bit")
    | _all("warned", "special tokens never count; a list of other tokens is not followed", "exclude_tokens")
    | _all(
        "harmless",
        TRAINING,
        "sae attn_implementation auxk_alpha batch_size data_args data_preprocessing_num_proc dataset"
        " dead_feature_threshold distribute_layers distribute_modules finetune grad_acc_steps hf_token init_seeds"
        " k_decay_steps log_to_wandb loss_fn lr lr_warmup_steps max_examples micro_acc_steps optimizer resume run_name"
        " save_best save_dir save_every seed shuffle_seed split text_column wandb_log_frequency end_to_end",
    )
)

OPENAI = (
    _all("honoured", "the gate", "activation activation_state_dict k")
    | _all("refused", "any but ReLU", "postact_fn")
    | _all("honoured", "layer norm belongs to TopK; its own loader knows no flag either", "normalize")
)

OPENMOSS = (
    _all("honoured", "the gate; other activation functions are refused", "act_fn top_k jump_relu_threshold")
    | _all("honoured", "the gate is asked with decoder norms", "sparsity_include_decoder_norm")
    | _all("honoured", "folded into the weights; batch-wise is refused", "norm_activation")
    | _all("honoured", "the norm that is folded", "dataset_average_activation_norm")
    | _all("honoured", "b_dec is subtracted from the input, or not", "apply_decoder_bias_to_pre_encoder")
    | _all("honoured", "shapes are checked against the tensors", "d_model d_sae expansion_factor")
    | _all("honoured", "the default of --hook", "hook_point_in")
    | _all("refused", "a transcoder, if it is another place", "hook_point_out")
    | _all("refused", "any but a plain SAE", "sae_type hook_points hook_points_in hook_points_out modalities")
    | _all("refused", "another encoder or decoder", "use_glu_encoder use_decoder_bias")
    | _all("harmless", "decoder rows are as they are stored", "decoder_exactly_fixed_norm force_unit_decoder_norm")
    | _all("harmless", "how it is computed", "use_triton_kernel sparsity_threshold_for_triton_spmm_kernel")
    | _all("harmless", "how it is computed", "promote_act_fn_dtype device dtype tp_size ddp_size")
    | _all("harmless", "where its weights were loaded from", "sae_pretrained_name_or_path strict_loading")
    | _all(
        "harmless",
        TRAINING,
        "seed bias_init_method init_decoder_norm init_encoder_norm init_encoder_with_decoder_transpose lp"
        " l1_coefficient l1_coefficient_warmup_steps k_warmup_steps use_batch_norm_mse use_ghost_grads"
        " jumprelu_threshold_window",
    )
)

QWEN_SCOPE = (
    _all("honoured", "the formula", "model_type k")
    | _all("honoured", "shapes are checked against the tensors", "d_model d_sae")
    | _all("honoured", "the default of --model", "base_model")
    | _all("refused", "any place but resid_post", "hook_point")
    | _all("harmless", "the file's name says which layer", "num_layers layer")
    | _all("harmless", "weights are read as float32", "dtype")
)

NANDA = (
    _all("honoured", "defaults of --model and --hook", "model_name act_name")
    | _all("honoured", "the default of --context", "seq_len")
    | _all("honoured", "shapes are checked against the tensors", "act_size dict_size")
    | _all("refused", "an SAE of one attention head", "head per_head")
    | _all("harmless", "the name of the activation says it", "site layer concat_heads")
    | _all("harmless", "weights are read as float32", "enc_dtype device")
    | _all(
        "harmless",
        TRAINING,
        "seed batch_size buffer_mult buffer_size buffer_batches lr num_tokens l1_coeff beta1 beta2 dict_mult"
        " remove_rare_dir reinit resample_scheme anthropic_neuron_resample_scale dead_direction_cutoff re_init_every"
        " anthropic_resample_last resample_factor num_resamples wandb_project_name wandb_entity save_state_dict_every"
        " b_dec_init sched_type sched_epochs sched_lr_factor sched_warmup_epochs sched_finish"
        " anthropic_resample_batches eval_every model_batch_size name test contiguous",
    )
)

CIRCUIT_TRACER = (
    _all("honoured", "the default of --model", "model_name")
    | _all("honoured", "what it reads and what it predicts", "feature_input_hook feature_output_hook")
    | _all("refused", "any but per-layer transcoders", "model_kind")
    | _all("refused", "anything but what the tensors say; topk", "activation k")
    | _all("harmless", "where its files lie, and what they are called", "transcoders repo_id revision subfolder")
    | _all("harmless", "for its own viewer", "scan scan_name")
)

TABLES: dict[str, dict[str, Statement]] = {
    "SAELens": SAELENS,
    "model_from_pretrained_kwargs": FROM_PRETRAINED,
    "Gemma Scope": GEMMA_SCOPE,
    "dictionary_learning": DICTIONARY_LEARNING,
    "sparsify": SPARSIFY,
    "OpenAI": OPENAI,
    "OpenMOSS": OPENMOSS,
    "Qwen Scope": QWEN_SCOPE,
    "1L-Sparse-Autoencoder": NANDA,
    "circuit-tracer": CIRCUIT_TRACER,
}

NAMED, LONGEST_NAME = 6, 40
"""So many unknown keys are named, and so many characters of each."""

PLAIN_CLASSES = (
    *("HookedTransformer", "HookedSAETransformer", "AutoModelForCausalLM", "SAETransformerBridge"),
    *("SparseAutoencoder", "SAE", "TrainingSAE"),
)
"""Classes that give the residual stream as it is, and plain SAEs."""


def _other_class(value: Any) -> str | None:
    return None if value in (None, *PLAIN_CLASSES) else "models of that class may give other activations"


VALUES: dict[str, Callable[[Any], str | None]] = {
    "exclude_special_tokens": lambda v: "tokens of that list count here" if isinstance(v, list) and v else None,
    "exclude_tokens": lambda v: "tokens of that list count here" if v else None,
    "use_chat_formatting": lambda v: "no chat template is applied here" if v else None,
    "model_kwargs": lambda v: "the model is run without them" if v else None,
    "variant": lambda v: "it is not known what that changes" if v else None,
    "model_class_name": _other_class,
    "model_class": _other_class,
    "sae_class_name": _other_class,
    "sae_type": lambda v: None if v in (None, "standard") else "it is not known what that changes",
    "quantization_config": lambda v: "the model is read as its files have it" if v else None,
    "load_in_8bit": lambda v: "the model is read as its files have it" if v else None,
    "load_in_4bit": lambda v: "the model is read as its files have it" if v else None,
}
"""Which values of what is `warned` call for a warning, and its words; normalisations are the reader's."""


def warnings_of(path: Path, table: str, *stated: Mapping[str, Any]) -> list[str]:
    """Warnings about a config: values that are not followed, then keys that are in no table. Each is one short line.

    path: the config; stated: its sections of this format.
    """
    known = TABLES[table]
    found, unknown = [], []
    for key, value in (item for section in stated for item in section.items()):
        if key not in known:
            unknown.append(key)
        elif known[key].kind == "warned" and key in VALUES and (words := VALUES[key](value)):
            found.append(f"{path}: {key} is {_short(value)}; {words}")
    return found + _unknown(path, list(dict.fromkeys(unknown)))


def _unknown(path: Path, keys: list[str]) -> list[str]:
    if not keys:
        return []
    names = ", ".join(_short(key) for key in keys[:NAMED])
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return [f"{path} states what is unknown here, so it was not followed: {names}{more}"]


def _short(value: Any) -> str:
    """A key or a value on one line of bounded length, without control characters."""
    return printable(" ".join(str(value).split()))[:LONGEST_NAME]


def other_weights(stated: Mapping[str, Any]) -> str | None:
    """Which weights of its model an SAE was trained on, if they are not the newest ones: `revision step1000`."""
    for key in ("revision", "checkpoint_index", "checkpoint_value", "checkpoint_label"):
        if stated.get(key) not in (None, "main"):
            return f"{key} {_short(stated[key])}"
    return None
