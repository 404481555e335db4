"""What each procedure says, in plain English. Worded anew; the benchmark's own are in its repository."""

INSTRUCTIONS = {
    "sort": (
        "Sort the letters of a string by swapping. Begin at its first position. For each letter from a to z, look"
        " through the string from left to right, from the current position on; every time that you find the letter,"
        " swap it with the letter at the current position and make the next position the current one. The state is"
        " the string after each swap that changes it."
    ),
    "gather": (
        "Begin with an empty string. For each triple (N, i, n), append n characters of the N-th string, from its"
        " i-th character on; count strings and characters from 0. The state is the string after each triple."
    ),
    "count": (
        "For each string, count its letters (N1), read its digits from left to right as one number (N2, 0 if there"
        " are none), and multiply the two (N3). The state is the list [string, N1, N2, N3] of each string, and last"
        " the sum of all N3."
    ),
    "search": (
        "Begin with a count of 0 for each string. For each pattern, add to the count of each string how often the"
        " pattern occurs in it. The state is the list of counts after each pattern."
    ),
    "copy": (
        "Begin with an empty string. For each index, append the string of the list that it names; count from 0."
        " The state is the string after each index."
    ),
    "substitute": (
        "Go through the string from left to right. At each position, if the character is the first of a pair,"
        " replace it by the second. The state is the whole string after each position."
    ),
    "encode": (
        "From left to right, turn each run of the same character into the character, a _ and the length of the"
        " run. The state is the list of runs after each one."
    ),
    "split1": (
        "For each position, cut the string before the character at that position of the whole string, counted from"
        " 0. The state is the list of parts after each cut."
    ),
    "split2": (
        "For each pair (i, j), cut the i-th part before its j-th character; count both from 0. The state is the"
        " list of parts after each cut."
    ),
    "compose": (
        "A rule (A, B, C) replaces A followed by B by C. As long as any rule applies, take the rightmost two"
        " neighbours that one applies to and replace them. The state is the list of characters after each"
        " replacement."
    ),
    "decompose": (
        "A rule (A, BC) replaces the letter A by the letters BC. As long as any rule applies, take the leftmost"
        " letter of the string that one applies to and replace it. The state is the string after each replacement."
    ),
    "rhythm": (
        "Begin with an empty string. In each of N steps append the next number and then the next letter, and go"
        " back to the begin of either sequence when it is over. The state is the string after each step."
    ),
    "compare": (
        "Compare the target with each candidate, character by character, until they differ; what is alike is a"
        " state. Stop at the candidate that equals the target. The last state is the list of all that was alike,"
        " and the target."
    ),
    "count2": (
        "Count the letters of the sentence, word by word. The state is the list of the counts of a to z after each"
        " word."
    ),
    "decode": (
        "A piece AxB stands for the character A, B times. Begin with an empty string and append what each piece"
        " stands for. The state is the string after each piece."
    ),
    "push_pop": (
        "Do the actions to the string: pop_left and pop_right remove its first or last letter, push_left(A) and"
        " push_right(A) put the letter A before or behind it. The state is the string after each action."
    ),
    "rotate": (
        "For each pair (m, n), take the characters m to n - 1 of the string, counted from 0, move each of them one"
        " place to the right and the last of them to the first place. The state is the string after each pair."
    ),
    "fill_word": (
        "For each pair of a number and a word, put the word in the place of the number in brackets. The state is"
        " the sentence after each pair."
    ),
    "delete_char": (
        "For each letter of the list, remove its first occurrence from the string. The state is the string after"
        " each letter."
    ),
    "delete_word": (
        "For each word of the list, remove its first occurrence from the sentence. The state is the sentence after"
        " each word."
    ),
    "cumulate": (
        "Do the operations to the number N, one after the other. The state is the number after each operation."
    ),
    "move_cyclic": (
        "For each move of a direction and a distance, move the x so many places; beyond one end of the array it"
        " comes back at the other. The state is the array after each move."
    ),
    "find_cyclic": (
        "Begin with the letter and the number of the command. In each step go one letter to the right in the"
        " string, from its end back to its begin, and take 1 from the number. The state is the list of letter and"
        " number, and when the number is 0 the letter alone."
    ),
}
"""By name of the procedure."""
