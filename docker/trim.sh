# Removes from an environment what a container never imports, and compiles the rest.
#   trim.sh VENV
set -eu
site=$("$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# The package itself is a layer of its own; here is only where to find it.
echo /opt/rag/lib > "$site/rag.pth"
find "$site" -type d \( -name tests -o -name test \) -not -path '*/torch/*' -prune -exec rm -rf {} +
rm -rf "$site"/pyarrow/include "$site"/pyarrow/src "$site"/onnxruntime/transformers "$site"/hf_xet*
# Sources and headers of compiled modules.
find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.h' -o -name '*.pyi' \) \
  -not -path '*/torch/*' -delete
# Symbols that no loader reads, of the libraries that come with most of them. The stage `kernels`
# needs binutils as well.
command -v strip >/dev/null && command -v ld >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils; } >/dev/null
find "$site"/uvloop "$site"/tokenizers "$site"/pyarrow/libarrow*.so.* \
  -name '*.so*' -exec strip --strip-unneeded {} +
# The analyzer does not load the dictionary of multi-word names.
rm -f "$site"/kiwipiepy_model/multi.dict
# The runtime's library for C programs: the Python module is linked with one of its own.
rm -f "$site"/onnxruntime/capi/libonnxruntime.so*
# Descriptions of services that nothing here calls.
if [ -d "$site/botocore/data" ]; then
  find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name sagemaker-runtime \
    ! -name bedrock-runtime ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -rf {} +
fi
# Arrow's RPC framework and file systems, which no part that is used here links to.
for name in flight s3 gcs azure; do
  rm -f "$site"/pyarrow/*"_$name"*.so* "$site"/pyarrow/*"_${name}fs"*.so*
done
# Three copies of one library: the wheel has no symbolic links.
for copy in "$site"/pyarrow/libarrow*.so "$site"/pyarrow/libparquet*.so; do
  rm -f "$copy" "$copy".[0-9]*.*
done
find "$site" -type d -name __pycache__ -prune -exec rm -rf {} +
"$1/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site"
