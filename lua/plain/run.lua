-- Runs what is plain, up to the first operation that is not; a batch that is plain as a whole ends here.
while number <= count do
  local one, key = plain[ARGV[at]], ARGV[at + 2]
  if not one or key ~= '' and recent('k ' .. key) then break end
  current_key, current_fingerprint, current_extra = key, ARGV[at + 3], ARGV[at + 4]
  local answer = one(at + 5)
  if not answer then break end
  if key ~= '' then remember_answer('k ', key, current_fingerprint, answer) end
  answers[number] = '0 ' .. answer
  number, at = number + 1, at + 2 + ARGV[at + 1]
end
if number > count then
  local text = concat(answers, '\n')
  remember_batch(text)
  write_plain()
  write_ends()
  return format('done %s %d %s %d\n', epoch, seq, head, server_ms) .. text
end
