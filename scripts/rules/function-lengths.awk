# Reads what swift-code.awk prints and reports functions longer than `max` lines, from the keyword to the closing brace.
#
# In Swift a function is `func`, `init`, `deinit` or `subscript` with a body; in C a block that opens in column 0 of the
# braces behind a parameter list.

function begin(name) { waiting = 1; waitingLine = number; waitingName = name; waitingParens = parens }

function finish(    n) {
  n = number - startLine[functions] + 1
  if (n > max)
    print path ":" startLine[functions] ": " nameOf[functions] " has " n " lines; cut it into parts of at most " max
  functions--
}

BEGIN { FS = "\t" }

$1 != path { path = $1; braces = parens = functions = waiting = 0; before = ""; isC = path ~ /\.[ch]$/ }

{
  number = $2
  code = $3
  before = " "
  while (length(code) > 0) {
    if (match(code, /^[A-Za-z_][A-Za-z_0-9]*/)) {
      word = substr(code, 1, RLENGTH)
      code = substr(code, RLENGTH + 1)
      if (isC) { if (braces == 0 && parens == 0) lastWord = word }
      else if (before != "." && before != "import" && word ~ /^(func|deinit|subscript)$/) begin(word)
      else if (before != "." && word == "init" && code ~ /^[?!]?[(<]/) begin(word)
      else if (waiting && waitingName == "func") waitingName = "func " word
      else if (waiting && parens == waitingParens && word ~ /^(var|let|case|associatedtype|typealias)$/) waiting = 0
      before = word == "import" ? "import" : "a"
      continue
    }
    character = substr(code, 1, 1)
    code = substr(code, 2)
    if (character == "(") { parens++; if (isC && braces == 0 && parens == 1) begin(lastWord) }
    else if (character == ")") parens--
    else if (character == ";" && isC) waiting = 0
    else if (character == "{") {
      braces++
      if (waiting && parens == waitingParens) {
        functions++
        startLine[functions] = waitingLine; nameOf[functions] = waitingName; bodyBraces[functions] = braces
        waiting = 0
      }
    } else if (character == "}") {
      if (functions > 0 && bodyBraces[functions] == braces) finish()
      braces--
      waiting = 0
    }
    if (character != " ") before = character
  }
}
