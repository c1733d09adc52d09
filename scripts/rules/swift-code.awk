# Prints the code of Swift or C files without comments and the text of literals, so that rules look at code alone:
# FILE <tab> LINE <tab> CODE, one for each line. String interpolations stay, and names in backticks become "_".
#
# It knows nested block comments, raw and multi-line strings and nested interpolations. Regex literals it does not know.

function push(kind, hashes, multi) {
  depth++; kinds[depth] = kind; hashesOf[depth] = hashes; multiOf[depth] = multi; parens[depth] = 0
}

function hashRun(at,    n) {
  n = 0
  while (substr(line, at + n, 1) == "#") n++
  return n
}

# A string literal begins at `at`, behind `hashes` number signs; returns how long its opening is.
function openString(at, hashes) {
  if (substr(line, at, 3) == "\"\"\"") { push("string", hashes, 1); return 3 }
  push("string", hashes, 0)
  return 1
}

# One step through code; returns the number of characters it took.
function codeStep(at, character,    two, n) {
  two = substr(line, at, 2)
  if (two == "//") return length(line)
  if (two == "/*") { comments = 1; return 2 }
  if (character == "\"") { out = out "\""; return openString(at, 0) }
  if (character == "#" && (n = hashRun(at)) && substr(line, at + n, 1) == "\"") {
    out = out "\""
    return n + openString(at + n, n)
  }
  if (character == "'" && isC && match(substr(line, at), /^'(\\.[^']*|[^'\\])'/)) { out = out "0"; return RLENGTH }
  if (character == "`" && match(substr(line, at + 1), /`/)) { out = out "_"; return RSTART + 1 }
  if (kinds[depth] == "interpolation") {
    if (character == "(") parens[depth]++
    if (character == ")" && parens[depth]-- == 0) { depth--; out = out " "; return 1 }
  }
  out = out character
  return 1
}

# One step through a string literal; returns the number of characters it took.
function stringStep(at, character,    quotes, hashes) {
  hashes = hashesOf[depth]
  quotes = multiOf[depth] ? 3 : 1
  if (character == "\\" && hashRun(at + 1) >= hashes) {
    if (substr(line, at + 1 + hashes, 1) != "(") return 2 + hashes
    push("interpolation", 0, 0)
    out = out " "
    return 2 + hashes
  }
  if (substr(line, at, quotes) == (quotes == 3 ? "\"\"\"" : "\"") && hashRun(at + quotes) >= hashes) {
    depth--
    out = out "\""
    return quotes + hashes
  }
  return 1
}

FNR == 1 { depth = 0; comments = 0; kinds[0] = "code"; isC = FILENAME ~ /\.[ch]$/ }

{
  line = $0
  out = ""
  at = 1
  end = length(line)
  while (at <= end) {
    character = substr(line, at, 1)
    if (comments > 0) {
      two = substr(line, at, 2)
      if (two == "*/") { comments--; at += 2 }
      else if (two == "/*" && !isC) { comments++; at += 2 }
      else at++
    } else if (kinds[depth] == "string") at += stringStep(at, character)
    else at += codeStep(at, character)
  }
  # Only a multi-line string goes on behind the end of its line.
  while (depth > 0 && !(kinds[depth] == "string" && multiOf[depth])) {
    if (kinds[depth] == "interpolation" && multiOf[depth - 1]) break
    depth--
  }
  print FILENAME "\t" FNR "\t" out
}
