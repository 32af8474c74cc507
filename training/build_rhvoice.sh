#!/usr/bin/env bash
# Builds the folder that `--rhvoice` wants: RHVoice's library, with nothing that plays sound, and its English voices.
#
#   training/build_rhvoice.sh SOURCES TARGET
#
# SOURCES holds checkouts of https://github.com/RHVoice: RHVoice at its tag 1.14.0, English, alan-eng, bdl-eng, clb-eng
# and ksp-eng. It wants a C++ compiler and Boost's headers (Debian's libboost-dev), and takes two minutes on one core.
set -euo pipefail
[ $# = 2 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
sources=$(realpath "$1") target=$(realpath -m "$2")
objects=$(mktemp -d)
trap 'rm -rf "$objects"' EXIT
mkdir -p "$target/data/languages" "$target/data/voices"

cp -r "$sources/RHVoice/src" "$objects/src"
cd "$objects"
printf 'const char CONFIG_PATH[] = "";\nconst char DATA_PATH[] = "";\n' >src/core/config.h
sed -e 's/@VERSION@/1.14.0/; s/#cmakedefine01 \(ENABLE_[A-Z]*\).*/#define \1 0/; s/@ENABLE_[A-Z]*@/0/' \
  src/include/core/config.h.in >src/include/core/config.h
flags=(-O2 -fPIC -w -pthread -DRHVOICE=1 '-DPACKAGE="RHVoice"' -Isrc/include -Isrc/hts_engine
  -Isrc/third-party/utf8 -Isrc/third-party/rapidxml)
for file in src/hts_engine/HTS_*.c; do gcc -std=gnu11 "${flags[@]}" -c "$file"; done
files=$(sed -n '/^src=\[/,/\]/p' src/core/SConscript | grep -o '[a-z_0-9]*\.cpp')
for file in $files; do
  g++ -std=c++11 "${flags[@]}" -c "src/core/$file"
done
g++ -std=c++11 "${flags[@]}" -c src/lib/lib.cpp

# The C++ library is inside, and hidden: beside that of another program in the same process it reads no numbers.
echo '{ global: RHVoice_*; local: *; };' >exported
g++ -shared -s -static-libstdc++ -static-libgcc -Wl,--version-script=exported -Wl,-z,defs -Wl,-soname,libRHVoice_core.so.10 \
  -o "$target/libRHVoice_core.so.10" ./*.o -pthread
echo 'static const int empty __attribute__((used)) = 0;' >empty.c
gcc -shared -s -fPIC empty.c -Wl,-soname,libRHVoice.so.5 -Wl,--no-as-needed -L"$target" -l:libRHVoice_core.so.10 \
  -Wl,-rpath,'$ORIGIN' -Wl,--disable-new-dtags -o "$target/libRHVoice.so.5"

cp -rT "$sources/English" "$target/data/languages/English"
for voice in alan bdl clb ksp; do
  cp -rT "$sources/$voice-eng" "$target/data/voices/$voice"
  rm -rf "$target/data/voices/$voice/16000"
done
rm -rf "$target"/data/*/*/.git
