-- Runs what is plain, up to the first operation that is not; a batch that is plain as a whole ends here.
while number <= count do
  local one = plain[ARGV[at]]
  if not one then break end
  take_caller(at + 2)
  if current_key ~= '' and recent('k ' .. current_key) then break end
  local answer = one(at + 3)
  if not answer then break end
  answers[number] = answer
  number, at = number + 1, at + 2 + ARGV[at + 1]
end
if number > count then
  local text = concat(answers, '\n')
  remember_batch(text)
  write_plain()
  write_ends()
  return format('done %s %d %s %d\n', epoch, seq, head, server_ms) .. text
end
